# Runs in GitLab's console with issue or revoke, PROJECT and, to issue, RUNNER_NAME and SETTINGS (JSON list of names). The token belongs to the acceptance's own
# project, with the rights of an owner: it gives access to nothing else, needs no person's account, and can delete old pipelines.
# Issuing also reports what GitLab knows of the runner, and its settings, because each call of the console takes long. GitLab counts a token's
# life in days; the caller revokes it earlier, and the next run here removes its user. Prints JSON.
require 'json'

action, project_path, runner_name, settings = ARGV
name = 'gitlab-stack-acceptance'
project = Project.find_by_full_path(project_path) || abort("project #{project_path} does not exist; run pulumi up --replace '**::server-prepare-gitlab'")
admin = User.admins.active.order(:id).first or abort('GitLab has no active administrator')

Gitlab::Auth::CurrentUserMode.bypass_session!(admin.id) do
  # Only an owner can grant rights, and the first one may have left.
  project.add_owner(admin)
  PersonalAccessToken.where(name: name, user_id: project.bots.map(&:id)).each do |token|
    revoked = ResourceAccessTokens::RevokeService.new(admin, project, token).execute
    abort("GitLab did not revoke a token: #{revoked.message}") if revoked.error?
  end

  if action == 'issue'
    created = ResourceAccessTokens::CreateService.new(
      admin, project,
      { name: name, scopes: ['api'], access_level: Gitlab::Access::OWNER, expires_at: Date.tomorrow.iso8601 }
    ).execute
    abort("GitLab created no token: #{created.message}") if created.error?
    runner = Ci::Runner.instance_type.find_by(description: runner_name)
    current = Gitlab::CurrentSettings.current_application_settings
    names = JSON.parse(settings).select { |name| current.respond_to?(name) }
    puts JSON.generate(
      token: created.payload.fetch(:access_token).token,
      runner: runner && { active: runner.active },
      settings: names.to_h { |name| [name, current.public_send(name)] }
    )
  end
end
