# GitLab's classes that the lab plays. A method that is not here does not exist: NoMethodError, and the script fails.

class ServiceResponse
  attr_reader :status, :message, :payload, :reason, :http_status

  def self.success(message: nil, payload: {}) = new(:success, message, payload, nil)
  def self.error(message:, payload: {}, reason: nil) = new(:error, message, payload, reason)

  def initialize(status, message, payload, reason)
    @status = status
    @message = message
    @payload = payload
    @reason = reason
  end

  def success? = status == :success
  def error? = status == :error
  def errors = error? ? Array.wrap(message) : []
  def to_h = payload.merge(status: status, message: message, reason: reason)
  def [](key) = to_h[key]
  def deconstruct_keys(_) = to_h
end

# What most services are made of: what they work on, who asks, and how. Each is `execute`d.
class BaseService
  def initialize(resource, user, params = {})
    @resource = resource
    @user = user
    @params = params
  end
end

class ApplicationSetting < ApplicationRecord
  columns(*Console.columns('ApplicationSetting').map(&:to_sym))
  column_names.each { |name| alias_method :"#{name}?", name unless name == 'id' }

  def self.current = first
  def self.current_without_cache = first
end

module Organizations
  class Organization < ApplicationRecord
    DEFAULT_ORGANIZATION_ID = 1
    columns :name, :path

    def self.default_organization = find_by(id: DEFAULT_ORGANIZATION_ID)
    def self.default?(id) = id == DEFAULT_ORGANIZATION_ID
    def default? = id == DEFAULT_ORGANIZATION_ID
  end
end

class PersonalAccessToken < ApplicationRecord
  columns :user_id, :name, :scopes, :description, :token_digest, dates: %i[expires_at], times: %i[last_used_at created_at], booleans: %i[revoked]
  virtual :token
  scope :active, :revoked
  belongs_to :user, 'User'

  def self.find_by_token(token) = (row = Console.call('find_access_token', token: token)) && load(row)
  def set_token(token) = self.token = token
  def revoke! = update!(revoked: true)
  def active? = self.class.active.exists?(id: id)
  def expired? = !!expires_at && expires_at <= Date.current
end

class User < ApplicationRecord
  columns :username, :name, :email, :encrypted_password, :state, :user_type, times: %i[password_expires_at created_at], booleans: %i[admin otp_required_for_login]
  virtual :password, :password_confirmation
  scope :active, :admins, :blocked, :human, :with_two_factor
  has_many :personal_access_tokens, 'PersonalAccessToken', :user_id

  def self.find_by_username(name) = find_by(username: name)
  def self.find_by_email(address) = find_by(email: address)
  def self.find_by_login(login) = find_by_username(login) || find_by_email(login)
  def namespace = Namespace.find_by(type: 'User', owner_id: id)
  def assign_personal_namespace(organization) = @organization = organization
  # Confirmation by mail is not played.
  def skip_confirmation! = nil

  def save(**)
    return false unless super

    Namespace.create!(path: username, name: name, organization_id: @organization.id, owner_id: id) if @organization && !namespace
    true
  end

  def active? = state == 'active'
  def blocked? = state == 'blocked'
  def block! = update!(state: 'blocked')
  def activate! = update!(state: 'active')
  alias block block!
  alias activate activate!
  def two_factor_enabled? = !!otp_required_for_login
  def disable_two_factor! = update!(otp_required_for_login: false)
  def valid_password?(password) = Console.call('valid_password', user_id: id, password: password)
  def can_create_group? = active?
end

class Namespace < ApplicationRecord
  columns :type, :name, :path, :full_path, :parent_id, :organization_id, :visibility_level, :owner_id, times: %i[created_at]
  has_many :projects, 'Project', :namespace_id
  belongs_to :parent, 'Namespace'
  belongs_to :organization, 'Organizations::Organization'

  def self.find_by_full_path(path) = (row = Console.call('find_by_full_path', model: name, path: path)) && load(row)
  def self.find_by_path(path) = find_by(path: path)
  def to_param = full_path
end

class Member < ApplicationRecord
  columns :source_type, :source_id, :user_id, :access_level, dates: %i[expires_at], times: %i[created_at]
  scope :active
  belongs_to :user, 'User'
end

# What projects and groups have in common.
module Membership
  def members = Member.where(source_type: member_source, source_id: id)
  def add_member(user, level) = Member.load(Console.call('add_member', kind: member_source, source_id: id, user_id: user.id, level: Gitlab::Access.level(level)))
  def add_owner(user) = add_member(user, Gitlab::Access::OWNER)
  def add_maintainer(user) = add_member(user, Gitlab::Access::MAINTAINER)
  def add_developer(user) = add_member(user, Gitlab::Access::DEVELOPER)
end

class Group < Namespace
  include Membership

  def member_source = 'Namespace'
end

class DeployToken < ApplicationRecord
  SCOPES = %i[read_repository read_registry write_registry read_package_registry write_package_registry].freeze
  columns :name, :username, :project_id, :creator_id, :deploy_token_type, :token_encrypted,
    times: %i[expires_at created_at], booleans: %i[revoked] + SCOPES
  scope :active
  belongs_to :project, 'Project'

  def token = Console.call('token', model: self.class.name, record_id: id)
  def revoke! = update!(revoked: true)
  def scopes = SCOPES.select { |scope| public_send(scope) }
  def active? = self.class.active.exists?(id: id)
end

class ContainerRepository < ApplicationRecord
  columns :project_id, :name, times: %i[created_at]
  belongs_to :project, 'Project'
end

class Project < ApplicationRecord
  include Membership
  columns :name, :path, :full_path, :description, :namespace_id, :organization_id, :creator_id, :visibility_level,
    :default_branch, :build_timeout, :ci_config_path, :ci_default_git_depth,
    times: %i[created_at], booleans: %i[container_registry_enabled shared_runners_enabled builds_enabled]
  virtual :initialize_with_readme
  has_many :deploy_tokens, 'DeployToken', :project_id
  has_many :container_repositories, 'ContainerRepository', :project_id
  has_many :ci_pipelines, 'Ci::Pipeline', :project_id
  has_many :all_pipelines, 'Ci::Pipeline', :project_id
  has_many :builds, 'Ci::Build', :project_id
  belongs_to :namespace, 'Namespace'
  belongs_to :creator, 'User'

  def self.find_by_full_path(path) = (row = Console.call('find_by_full_path', model: name, path: path)) && load(row)
  def group = Group.find_by(id: namespace_id, type: 'Group')
  def member_source = 'Project'
  def bots = Console.call('bots', project_id: id).map { |row| User.load(row) }
  def path_with_namespace = full_path
  def to_param = path
  def private? = visibility_level == Gitlab::VisibilityLevel::PRIVATE
  def public? = visibility_level == Gitlab::VisibilityLevel::PUBLIC
end

module Ci
  class Pipeline < ApplicationRecord
    columns :iid, :project_id, :user_id, :ref, :sha, :before_sha, :source, :status, :yaml_errors, :failure_reason,
      :name, :duration, times: %i[created_at updated_at started_at finished_at], booleans: %i[tag]
    has_many :builds, 'Ci::Build', :pipeline_id
    belongs_to :project, 'Project'
    belongs_to :user, 'User'

    %w[created pending running success failed canceled skipped].each { |state| define_method(:"#{state}?") { status == state } }
    def complete? = %w[success failed canceled skipped].include?(status)
  end

  class Build < ApplicationRecord
    columns :project_id, :pipeline_id, :user_id, :runner_id, :name, :stage, :status, :failure_reason, :exit_code,
      times: %i[created_at queued_at started_at finished_at], booleans: %i[allow_failure retried]
    scope :latest
    belongs_to :pipeline, 'Ci::Pipeline'
    belongs_to :project, 'Project'
    belongs_to :runner, 'Ci::Runner'
  end

  class CreatePipelineService < BaseService
    # Returns a response whose payload is the pipeline, saved or not.
    def execute(source, ignore_skip_ci: false, **options)
      options[:ignore_skip] = ignore_skip_ci
      options[:variables] = @params[:variables_attributes] if @params[:variables_attributes]
      answer = Console.call('create_pipeline', project_id: @resource.id, user_id: @user.id, ref: @params.fetch(:ref),
        source: source.to_s, options: options)
      return ServiceResponse.success(payload: Pipeline.load(answer['record'])) if answer['errors'].empty?

      pipeline = Pipeline.new(ref: @params[:ref]).tap { |unsaved| unsaved.errors.replace(answer['errors']) }
      ServiceResponse.error(message: answer['errors'].to_sentence, payload: pipeline)
    end
  end

  class RunnerManager < ApplicationRecord
    columns :runner_id, :system_xid, :version, :revision, :platform, :architecture, :executor, :ip_address,
      times: %i[contacted_at created_at]
    belongs_to :runner, 'Ci::Runner'
  end

  class Runner < ApplicationRecord
    columns :runner_type, :description, :access_level, :maximum_timeout, :maintenance_note, :tag_list, :token_encrypted,
      :registration_type, :creator_id, times: %i[contacted_at created_at], booleans: %i[active run_untagged locked]
    scope :instance_type, :group_type, :project_type, :paused
    has_many :runner_managers, 'Ci::RunnerManager', :runner_id
    belongs_to :creator, 'User'

    Relation.define_method(:active) { |value = true| value ? scope(:active) : scope(:paused) }
    def self.active(value = true) = relation.active(value)
    def self.find_by_token(token) = (row = Console.call('find_runner', token: token)) && load(row)
    def token = Console.call('token', model: self.class.name, record_id: id)
    def status = Console.call('runner_status', runner_id: id).to_sym
    def online? = status == :online
    def instance_type? = runner_type == 'instance_type'
    def short_sha = token.delete_prefix('glrt-')[0..8]
  end

  module Runners
    class CreateRunnerService
      TYPES = %w[instance_type group_type project_type].freeze

      def initialize(user:, params:)
        # The real one calls `new` on what it finds for the type; a symbol finds nothing.
        raise NoMethodError, "undefined method `new' for nil:NilClass" unless TYPES.include?(params[:runner_type])

        @user = user
        @params = params
      end

      def execute
        answer = Console.call('create_runner', user_id: @user.id, params: @params)
        return ServiceResponse.error(message: answer['message'], reason: answer['reason'].to_sym) if answer['message']

        ServiceResponse.success(payload: { runner: Runner.load(answer['record']) })
      end
    end
  end
end

module ResourceAccessTokens
  class CreateService < BaseService
    def initialize(user, resource, params = {}) = super(resource, user, params)

    def execute
      answer = Console.call('create_project_token', project_id: @resource.id, user_id: @user.id, params: @params)
      return ServiceResponse.error(message: answer['message']) if answer['message']

      ServiceResponse.success(payload: { access_token: PersonalAccessToken.load(answer['record']) })
    end
  end

  class RevokeService < BaseService
    def initialize(user, resource, access_token)
      super(resource, user)
      @access_token = access_token
    end

    def execute
      trouble = Console.call('revoke_project_token', project_id: @resource.id, user_id: @user.id, token_id: @access_token.id)
      return ServiceResponse.error(message: trouble) if trouble

      ServiceResponse.success(message: "Access token #{@access_token.name} has been revoked and the bot user has been scheduled for deletion.")
    end
  end
end

module Groups
  class CreateService < BaseService
    def initialize(user, params = {}) = super(nil, user, params)

    def execute
      answer = Console.call('create_group', user_id: @user.id, params: @params)
      return ServiceResponse.success(payload: { group: Group.load(answer['record']) }) if answer['errors'].empty?

      group = Group.new(@params).tap { |unsaved| unsaved.errors.replace(answer['errors']) }
      ServiceResponse.error(message: 'Group has errors', payload: { group: group })
    end
  end

  class DestroyService < BaseService
    def execute = @resource.destroy
  end
end

module Projects
  class CreateService < BaseService
    def initialize(user, params) = super(nil, user, params)

    # Returns the project, saved or not.
    def execute
      answer = Console.call('create_project', user_id: @user.id, params: @params)
      return Project.load(answer['record']) if answer['errors'].empty?

      Project.new(@params).tap { |unsaved| unsaved.errors.replace(answer['errors']) }
    end
  end

  class DestroyService < BaseService
    DestroyError = Class.new(StandardError)

    def execute
      @resource.destroy
      true
    end
  end

  module DeployTokens
    class CreateService < BaseService
      def execute
        answer = Console.call('create_deploy_token', project_id: @resource.id, user_id: @user.id, params: @params)
        unless answer['errors'].empty?
          return { message: answer['errors'].to_sentence, status: :error, http_status: :bad_request }
        end

        { deploy_token: DeployToken.load(answer['record']), http_status: :created, status: :success }
      end
    end
  end
end

module Gitlab
  VERSION = Console.version

  module Access
    NO_ACCESS = 0
    GUEST = 10
    REPORTER = 20
    DEVELOPER = 30
    MAINTAINER = 40
    OWNER = 50

    def self.sym_options_with_owner = { guest: GUEST, reporter: REPORTER, developer: DEVELOPER, maintainer: MAINTAINER, owner: OWNER }
    def self.level(value) = value.is_a?(Integer) ? value : sym_options_with_owner.fetch(value.to_sym)
  end

  module VisibilityLevel
    PRIVATE = 0
    INTERNAL = 10
    PUBLIC = 20
  end

  # The settings of the admin area; every setting of the record is a method here too.
  module CurrentSettings
    class << self
      def current_application_settings = ApplicationSetting.first

      def method_missing(name, *args, **options, &block)
        current_application_settings.public_send(name, *args, **options, &block)
      end

      def respond_to_missing?(name, include_private = false)
        ApplicationSetting.method_defined?(name) || super
      end
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

  # gitlab.yml; what is not in it raises.
  class Settings
    def initialize(values)
      values.each do |name, value|
        define_singleton_method(name) { value.is_a?(Hash) ? Settings.new(value) : value }
      end
    end

    def [](name) = public_send(name)
  end

  def self.config = @config ||= Settings.new(Console.settings)
end

module Rails
  def self.env = 'production'
  def self.version = '7.0.8.7'
end
