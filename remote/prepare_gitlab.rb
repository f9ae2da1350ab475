# Runs in GitLab's console with RUNNER_NAME, RUNNER_TAGS (JSON list), PROJECT (group/project), JOBS (`any`, or `protected`: only those
# of protected branches and tags that name one of the runner's tags) and whether GitLab is new: a new one is set to what standard input
# says (JSON), and root has to choose another password; creates the stack's one runner record and the project that the acceptance
# pushes to. Idempotent. Prints JSON, with the names of settings that this GitLab does not have.
require 'json'

runner_name, runner_tags, project_path, jobs, is_new = ARGV
group_path, project_name = project_path.split('/', 2)
admin = User.admins.active.order(:id).first or abort('GitLab has no active administrator')

# Once: later these are up to the owner.
unknown = []
if is_new == 'true'
  current = ApplicationSetting.current_without_cache || ApplicationSetting.create_from_defaults
  known, unknown = JSON.parse($stdin.read).partition { |name, _| current.respond_to?("#{name}=") }
  current.update(known.to_h) || abort("GitLab refuses settings; see gitlabSettings: #{current.errors.full_messages.join(', ')}")
  # Until then the first password opens nothing but the page that asks for another one (GlobalPolicy, rule password_expired).
  User.find_by_username('root')&.update!(password_expires_at: Time.current)
end

Gitlab::Auth::CurrentUserMode.bypass_session!(admin.id) do
  runner = Ci::Runner.instance_type.find_by(description: runner_name)
  unless runner
    created = Ci::Runners::CreateRunnerService.new(
      user: admin,
      params: { runner_type: 'instance_type', description: runner_name, run_untagged: true, paused: false }
    ).execute
    abort("GitLab created no runner: #{created.message}") if created.error?
    runner = created.payload.fetch(:runner)
  end
  # Otherwise the access level is up to the owner, as pausing is.
  access = {}
  access = { access_level: 'not_protected' } unless runner.run_untagged?
  access = { access_level: 'ref_protected' } if jobs == 'protected'
  runner.update!(run_untagged: jobs != 'protected', tag_list: JSON.parse(runner_tags), **access)

  group = Group.find_by_full_path(group_path)
  unless group
    created = Groups::CreateService.new(
      admin,
      { name: group_path, path: group_path, visibility_level: Gitlab::VisibilityLevel::PRIVATE,
        organization_id: Organizations::Organization::DEFAULT_ORGANIZATION_ID }
    ).execute
    abort("GitLab created no group #{group_path}: #{created.payload[:group].errors.full_messages}") if created.error?
    group = created.payload.fetch(:group)
  end

  unless Project.find_by_full_path(project_path)
    project = Projects::CreateService.new(
      admin,
      { name: project_name, path: project_name, namespace_id: group.id, visibility_level: Gitlab::VisibilityLevel::PRIVATE }
    ).execute
    abort("GitLab created no project #{project_path}: #{project.errors.full_messages}") unless project.persisted?
  end

  puts JSON.generate(runnerToken: runner.token, unknownSettings: unknown.map(&:first))
end
