# Issues or revokes the token of the acceptance; runs in GitLab's console. Arguments: `issue` or `revoke`, PROJECT and, for `issue`,
# RUNNER_NAME and SETTINGS (JSON list of names). It is an access token of the acceptance's project with the role Owner: it gives access to
# nothing else, needs no user account, and can delete old pipelines. `issue` also reports the state of the runner and the values of the
# settings, because every start of the console is slow. GitLab expires tokens by the day; the caller revokes this one earlier. From 17.9 on
# GitLab keeps the user of a revoked token for 30 days (doc/user/project/settings/project_access_tokens.md), so every run of this program
# also deletes the users of former tokens. Prints JSON.
require 'json'

action, project_path, runner_name, settings = ARGV
name = 'gitlab-stack-acceptance'
project = Project.find_by_full_path(project_path) || abort("project #{project_path} does not exist; run pulumi up --replace '**::server-prepare-gitlab'")
admin = User.admins.active.order(:id).first or
  abort('GitLab has no active administrator. A deactivated one is active again after a sign-in to GitLab; then try again')

Gitlab::Auth::CurrentUserMode.bypass_session!(admin.id) do
  # Only an owner can grant the role, and the project's first owner may have left.
  project.add_owner(admin)
  former = PersonalAccessToken.where(name: name, user_id: project.bots.map(&:id))
  former.active.each do |token|
    revoked = ResourceAccessTokens::RevokeService.new(admin, project, token).execute
    abort("GitLab could not revoke an access token: #{revoked.message}") if revoked.error?
  end
  # In the background, as RevokeService did before 17.9. The users' pipelines are kept, as those of GitLab's ghost user.
  former.each { |token| DeleteUserWorker.perform_async(admin.id, token.user_id, { 'skip_authorization' => true }) }

  if action == 'issue'
    created = ResourceAccessTokens::CreateService.new(
      admin, project,
      { name: name, scopes: ['api'], access_level: Gitlab::Access::OWNER, expires_at: Date.tomorrow.iso8601 }
    ).execute
    abort("GitLab could not create an access token: #{created.message}") if created.error?
    # A drill's runner is of the project; a paused one of the same name may be the original's.
    runner = Ci::Runner.where(description: runner_name).max_by { |found| found.active ? 1 : 0 }
    current = Gitlab::CurrentSettings.current_application_settings
    names = JSON.parse(settings).select { |name| current.respond_to?(name) }
    puts JSON.generate(
      token: created.payload.fetch(:access_token).token,
      runner: runner && { active: runner.active },
      settings: names.to_h { |name| [name, current.public_send(name)] }
    )
  end
end
