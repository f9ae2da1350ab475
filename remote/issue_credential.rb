# Runs in GitLab's console with issue or revoke, and PROJECT. A deploy token, not root's password: it works whatever became of
# root (2FA, renamed, locked), opens one project only, and ends. GitLab counts its end in days, so it is revoked as well.
require 'json'

action, project_path = ARGV
name = 'gitlab-stack-acceptance'
project = Project.find_by_full_path(project_path) || abort("project #{project_path} is gone")
project.deploy_tokens.where(name: name).each(&:revoke!)

if action == 'issue'
  admin = User.admins.active.order(:id).first or abort('GitLab has no active administrator')
  made = Gitlab::Auth::CurrentUserMode.bypass_session!(admin.id) do
    Projects::DeployTokens::CreateService.new(
      project, admin,
      { name: name, expires_at: Date.tomorrow.iso8601, read_registry: true, write_registry: true }
    ).execute
  end
  abort("GitLab made no deploy token: #{made[:message]}") unless made[:status] == :success
  puts JSON.generate(username: made[:deploy_token].username, token: made[:deploy_token].token)
end
