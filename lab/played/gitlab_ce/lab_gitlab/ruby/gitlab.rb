# Stand-ins for GitLab's classes. A script that calls a method which is missing here fails with NoMethodError.

class ServiceResponse
  attr_reader :message, :payload

  def initialize(message, payload)
    @message = message
    @payload = payload
  end

  def self.success(payload = {}) = new(nil, payload)
  def self.error(message, payload = {}) = new(message, payload)
  def error? = !message.nil?
end

class ApplicationSetting < ApplicationRecord
  columns

  def self.current_without_cache = first
end

module Organizations
  class Organization < ApplicationRecord
    DEFAULT_ORGANIZATION_ID = 1
    columns

    def self.default_organization = find_by(id: DEFAULT_ORGANIZATION_ID)
  end
end

class PersonalAccessToken < ApplicationRecord
  columns virtual: %i[token]
  scope :active

  def revoke! = update!(revoked: true)
end

class User < ApplicationRecord
  columns virtual: %i[password password_confirmation]
  scope :active, :admins, :human

  def self.find_by_username(name) = find_by(username: name)
  def personal_access_tokens = PersonalAccessToken.where(user_id: id)
  def assign_personal_namespace(organization) = @organization = organization
  def valid_password?(password) = Console.call('valid_password', user_id: id, password: password)
  # The lab has no confirmation by e-mail.
  def skip_confirmation! = nil

  def save
    return false unless super

    Namespace.create!(path: username, name: name, organization_id: @organization.id) if @organization
    true
  end
end

class DeleteUserWorker
  def self.perform_async(_current_user_id, user_id, options = {})
    raise NotImplementedError, 'the lab supports only skip_authorization' unless options == { 'skip_authorization' => true }

    Console.call('queue_user_deletion', user_id: user_id)
  end
end

# Methods shared by projects and groups.
module Membership
  def add_owner(user) = add_member(user, Gitlab::Access::OWNER)
  def add_member(user, level) = Console.call('add_member', kind: member_source, source_id: id, user_id: user.id, level: level)
end

module FoundByPath
  def find_by_full_path(path) = (row = Console.call('find_by_full_path', model: name, path: path)) && load(row)
end

class Namespace < ApplicationRecord
  extend FoundByPath
  columns
end

class Group < Namespace
  include Membership

  def member_source = 'Namespace'
end

class Member < ApplicationRecord
  columns
end

class ContainerRepository < ApplicationRecord
  columns
end

class Project < ApplicationRecord
  extend FoundByPath
  include Membership
  columns

  def member_source = 'Project'
  def project_feature = ProjectFeature.new(self)
  def protected_branches = ProtectedBranch.where(project_id: id)
  def bots = Console.call('bots', project_id: id).map { |row| User.load(row) }
end

# The access levels of a project's features, which are columns of the project here.
class ProjectFeature
  DISABLED = 0
  LEVELS = { 'disabled' => DISABLED, 'private' => 10, 'enabled' => 20 }.freeze

  def initialize(project)
    @project = project
  end

  def [](name) = LEVELS.fetch(@project.public_send(name))
end

class ProtectedBranch < ApplicationRecord
  columns virtual: %i[push_access_levels_attributes merge_access_levels_attributes]
end

class CommitStatus < ApplicationRecord
  columns
end

class Environment < ApplicationRecord
  columns
end

module Ci
  module HasStatus
    AVAILABLE_STATUSES = %w[
      created waiting_for_resource preparing waiting_for_callback pending running success failed canceling canceled skipped manual
      scheduled
    ].freeze
  end

  class Pipeline < ApplicationRecord
    columns

    def builds = Build.where(pipeline_id: id)
  end

  class Build < ApplicationRecord
    Trace = Struct.new(:raw)
    columns

    def trace = Trace.new(Console.call('log', job_id: id))
  end

  [:PendingBuild, :RunningBuild, :PipelineSchedule].each { |name| const_set(name, Class.new(ApplicationRecord)).columns }

  class Runner < ApplicationRecord
    columns
    scope :instance_type, :project_type, :paused

    def token = Console.call('token', model: self.class.name, record_id: id)
  end

  module Runners
    class CreateRunnerService
      TYPES = %w[instance_type group_type project_type].freeze

      def initialize(user:, params:)
        # The real one calls `new` on the result of a lookup by type, which is nil for a symbol.
        raise NoMethodError, "undefined method `new' for nil:NilClass" unless TYPES.include?(params[:runner_type])

        @user = user
        @params = params
      end

      def execute
        params = @params[:scope] ? @params.merge(scope: @params[:scope].id) : @params
        answer = Console.call('create_runner', user_id: @user.id, params: params)
        return ServiceResponse.error(answer['message']) if answer['message']

        ServiceResponse.success(runner: Runner.load(answer['record']))
      end
    end
  end
end

module ResourceAccessTokens
  CreateService = Struct.new(:user, :project, :params) do
    def execute
      answer = Console.call('create_project_token', project_id: project.id, user_id: user.id, params: params)
      return ServiceResponse.error(answer['message']) if answer['message']

      ServiceResponse.success(access_token: PersonalAccessToken.load(answer['record']))
    end
  end

  RevokeService = Struct.new(:user, :project, :access_token) do
    def execute
      refusal = Console.call('revoke_project_token', project_id: project.id, user_id: user.id, token_id: access_token.id)
      refusal ? ServiceResponse.error(refusal) : ServiceResponse.success
    end
  end
end

module Groups
  CreateService = Struct.new(:user, :params) do
    def execute
      group = Group.new_from(Console.call('create_group', params: params), params)
      group.persisted? ? ServiceResponse.success(group: group) : ServiceResponse.error('Group has errors', group: group)
    end
  end

  DestroyService = Struct.new(:group, :user) do
    def execute = group.destroy
  end
end

module Projects
  CreateService = Struct.new(:user, :params) do
    # Returns the project, saved or not.
    def execute = Project.new_from(Console.call('create_project', user_id: user.id, params: params), params)
  end

  DestroyService = Struct.new(:project, :user) do
    def execute = project.destroy
  end
  DestroyService::DestroyError = Class.new(StandardError)
end

module ProtectedBranches
  CreateService = Struct.new(:project, :user, :params) do
    # Returns the protected branch, saved or not.
    def execute(skip_authorization: false)
      raise NotImplementedError, 'the lab supports only skip_authorization: true' unless skip_authorization

      ProtectedBranch.new(params.merge(project_id: project.id)).tap(&:save)
    end
  end
end

module Gitlab
  VERSION = Console.version

  module Access
    GUEST = 10
    REPORTER = 20
    DEVELOPER = 30
    MAINTAINER = 40
    OWNER = 50
  end

  module VisibilityLevel
    PRIVATE = 0
  end

  module SilentMode
    def self.enabled? = CurrentSettings.silent_mode_enabled
  end

  # The settings of the admin area; each setting is also a method of this module.
  module CurrentSettings
    class << self
      def current_application_settings = ApplicationSetting.first

      def method_missing(name, ...) = current_application_settings.public_send(name, ...)
      def respond_to_missing?(name, include_private = false) = ApplicationSetting.method_defined?(name) || super
    end
  end

  module Auth
    class CurrentUserMode
      def self.bypass_session!(user_id)
        Console.call('bypass_session', user_id: user_id)
        return unless block_given?

        begin
          yield
        ensure
          Console.call('bypass_session', user_id: nil)
        end
      end
    end
  end
end
