# Creates the stack's runner and the acceptance's project; runs in GitLab's console. Arguments: RUNNER_NAME, RUNNER_TAGS (JSON list),
# PROJECT (group/project), JOBS (`any`, or `protected`: only jobs of protected branches and tags that use one of the runner's tags),
# RUNNER_TYPE (`instance_type`, or `project_type`: only jobs of the acceptance's project), and `true` if GitLab is new. Then it also applies
# the application settings of standard input (JSON) and requires root to choose another password. Idempotent. Prints JSON, including the
# names of settings that this GitLab version does not have.
require 'json'

runner_name, runner_tags, project_path, jobs, runner_type, is_new = ARGV
group_path, project_name = project_path.split('/', 2)
admin = User.admins.active.order(:id).first or
  abort('GitLab has no active administrator. A deactivated one is active again after a sign-in to GitLab; then run pulumi up again')

# Only once: later the administrators manage these settings.
unknown = []
if is_new == 'true'
  current = ApplicationSetting.current_without_cache || ApplicationSetting.create_from_defaults
  known, unknown = JSON.parse($stdin.read).partition { |name, _| current.respond_to?("#{name}=") }
  current.update(known.to_h) || abort("GitLab rejected values of gitlabSettings: #{current.errors.full_messages.join(', ')}")
  # Until it is changed, the initial password only gives access to the page that asks for a new one (GlobalPolicy, password_expired).
  User.find_by_username('root')&.update!(password_expires_at: Time.current)
end

Gitlab::Auth::CurrentUserMode.bypass_session!(admin.id) do
  group = Group.find_by_full_path(group_path)
  unless group
    created = Groups::CreateService.new(
      admin,
      { name: group_path, path: group_path, visibility_level: Gitlab::VisibilityLevel::PRIVATE,
        organization_id: Organizations::Organization::DEFAULT_ORGANIZATION_ID }
    ).execute
    abort("GitLab could not create the group #{group_path}: #{created.payload[:group].errors.full_messages}") if created.error?
    group = created.payload.fetch(:group)
  end

  # What a pipeline needs; the administrators may have other defaults for projects (app/models/project.rb). A feature that is on for
  # members is enough, and may not be on for more people than the repository (app/models/project_feature.rb).
  needed = { ci_config_path: nil }
  needed[:shared_runners_enabled] = true if runner_type == 'instance_type'
  features = %i[builds_access_level container_registry_access_level]
  project = Project.find_by_full_path(project_path)
  if project
    features.each { |feature| needed[feature] = 'private' if project.project_feature[feature] == ProjectFeature::DISABLED }
    project.update(needed) || abort("GitLab could not change the project #{project_path}: #{project.errors.full_messages}")
  else
    features.each { |feature| needed[feature] = 'enabled' }
    project = Projects::CreateService.new(
      admin,
      { name: project_name, path: project_name, namespace_id: group.id, visibility_level: Gitlab::VisibilityLevel::PRIVATE, **needed }
    ).execute
    abort("GitLab could not create the project #{project_path}: #{project.errors.full_messages}") unless project.persisted?
  end

  # GitLab protects a new default branch in the background after the first push (Projects::ProtectDefaultBranchService, with the same
  # service and levels), and jobs of pipelines created before that are never protected. ProtectedBranch.protected? does not help: it is
  # true for every branch of an empty repository.
  if jobs == 'protected' && project.protected_branches.find_by(name: 'main').nil?
    maintainers = [{ access_level: Gitlab::Access::MAINTAINER }]
    branch = ProtectedBranches::CreateService.new(
      project, admin, { name: 'main', push_access_levels_attributes: maintainers, merge_access_levels_attributes: maintainers }
    ).execute(skip_authorization: true)
    abort("GitLab could not protect the branch main of #{project_path}: #{branch.errors.full_messages}") unless branch.persisted?
  end

  runner = Ci::Runner.public_send(runner_type).find_by(description: runner_name)
  unless runner
    of_project = runner_type == 'project_type' ? { scope: project } : {}
    created = Ci::Runners::CreateRunnerService.new(
      user: admin,
      params: { runner_type: runner_type, description: runner_name, run_untagged: true, paused: false, **of_project }
    ).execute
    abort("GitLab could not create the runner: #{created.message}") if created.error?
    runner = created.payload.fetch(:runner)
  end
  # Otherwise the access level, like pausing, is left to the administrators.
  access = {}
  access = { access_level: 'not_protected' } unless runner.run_untagged?
  access = { access_level: 'ref_protected' } if jobs == 'protected'
  # Except in a silenced copy, where all runners are paused.
  access[:active] = true if runner_type == 'project_type'
  # With runner_token_expiration_interval the token would expire: gitlab-runner rotates only one whose expiry its config.toml has
  # (commands/multi.go), and pulumi up would put the former one back.
  runner.update!(run_untagged: jobs != 'protected', tag_list: JSON.parse(runner_tags), token_expires_at: nil, **access)

  puts JSON.generate(runnerToken: runner.token, unknownSettings: unknown.map(&:first))
end
