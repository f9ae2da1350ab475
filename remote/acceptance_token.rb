# Runs in GitLab's console with issue or revoke, PROJECT and, to issue, RUNNER_NAME. A token of the acceptance's own project,
# as its owner: it opens nothing else, needs no person's account, and can delete old pipelines. Issuing also tells what GitLab
# knows of the runner: a call of the console takes long, so there is one. GitLab counts the token's end in days; whoever had
# it issued revokes it, and the next one here removes its user. Prints JSON.
require 'json'

action, project_path, runner_name = ARGV
name = 'gitlab-stack-acceptance'
project = Project.find_by_full_path(project_path) || abort("project #{project_path} is gone")
admin = User.admins.active.order(:id).first or abort('GitLab has no active administrator')

Gitlab::Auth::CurrentUserMode.bypass_session!(admin.id) do
  # Rights are given by those who have them, also when the first owner has left.
  project.add_owner(admin)
  PersonalAccessToken.where(name: name, user_id: project.bots.map(&:id)).each do |token|
    gone = ResourceAccessTokens::RevokeService.new(admin, project, token).execute
    abort("GitLab did not revoke a token: #{gone.message}") if gone.error?
  end

  if action == 'issue'
    made = ResourceAccessTokens::CreateService.new(
      admin, project,
      { name: name, scopes: ['api'], access_level: Gitlab::Access::OWNER, expires_at: Date.tomorrow.iso8601 }
    ).execute
    abort("GitLab made no token: #{made.message}") if made.error?
    runner = Ci::Runner.instance_type.find_by(description: runner_name)
    puts JSON.generate(
      token: made.payload.fetch(:access_token).token,
      runner: runner && { active: runner.active }
    )
  end
end
