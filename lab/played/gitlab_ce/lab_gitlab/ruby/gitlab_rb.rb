# Evaluates a gitlab.rb like omnibus-gitlab's SettingsDSL and prints the settings as JSON.
# An error is also printed as JSON (class, message and line of the file), with exit status 1.
require 'json'
require 'socket'

module Mixlib
  module Config
    class UnknownConfigOptionError < StandardError; end
  end
end

module Gitlab
  # A hash that treats symbols as strings and creates missing hashes: registry['a']['b'] = 1.
  class ConfigMash < Hash
    def [](key)
      key = key.to_s
      key?(key) ? super : store(key, ConfigMash.new)
    end

    def []=(key, value)
      super(key.to_s, ConfigMash.of(value))
    end

    def dig(key, *rest)
      value = key?(key.to_s) ? self[key] : nil
      rest.empty? || value.nil? ? value : value.dig(*rest)
    end

    def self.of(value)
      case value
      when ConfigMash then value
      when Hash then value.each_with_object(ConfigMash.new) { |(key, inner), mash| mash[key] = inner }
      when Array then value.map { |inner| of(inner) }
      else value
      end
    end
  end

  # Top-level names of 17.10: omnibus-gitlab package/libraries/config/gitlab.rb.
  PLAIN = %w[
    external_url registry_external_url mattermost_external_url pages_external_url gitlab_kas_external_url
    runtime_dir git_data_dir roles
  ].freeze
  ROLES = %w[
    application sidekiq postgres patroni redis_sentinel redis_master redis_replica geo_primary geo_secondary
    monitoring pgbouncer consul pages spamcheck gitaly
  ].freeze
  SECTIONS = %w[
    package registry redis postgresql gitlab_kas gitlab_pages pgbouncer repmgr repmgrd consul spamcheck patroni gitaly
    praefect mattermost letsencrypt crond logrotate prometheus alertmanager node_exporter redis_exporter
    postgres_exporter pgbouncer_exporter gitlab_exporter geo_postgresql geo_secondary geo_logcursor sentinel
    suggested_reviewers gitlab_sshd gitlab_shell gitlab_rails gitlab_workhorse logging unicorn puma mailroom
    storage_check nginx actioncable bootstrap omnibus_gitconfig manage_accounts manage_storage_directories user
    gitlab_ci sidekiq mattermost_nginx pages_nginx registry_nginx gitlab_kas_nginx remote_syslog high_availability
    web_server prometheus_monitoring gitlab_backup_cli git_data_dirs
  ].freeze

  @settings = PLAIN.to_h { |name| [name, nil] }
  (SECTIONS + ROLES.map { |role| "#{role}_role" }).each { |name| @settings[name] = ConfigMash.new }
  @settings['edition'] = 'ce'
  @settings['node'] = ConfigMash.of('fqdn' => Socket.gethostname, 'hostname' => Socket.gethostname)

  class << self
    def [](name)
      @settings.fetch(name.to_s) { unsupported('Reading', name) }
    end

    def []=(name, value)
      unsupported('Cannot set', name) unless @settings.key?(name.to_s)
      @settings[name.to_s] = ConfigMash.of(value)
    end

    def method_missing(name, *values)
      name = name.to_s.chomp('=')
      self[name] = values.size == 1 ? values.first : values unless values.empty?
      self[name]
    end

    def respond_to_missing?(*)
      true
    end

    private

    def unsupported(what, name)
      raise Mixlib::Config::UnknownConfigOptionError, "#{what} unsupported config value #{name}."
    end
  end
end

file = ARGV.fetch(0)
begin
  # Keep output of the file out of the result.
  result = $stdout.dup
  $stdout.reopen($stderr)
  Gitlab.instance_eval(File.read(file), file, 1)
rescue SyntaxError, StandardError => e
  line = (e.backtrace || []).find { |entry| entry.start_with?("#{file}:") }
  result.puts JSON.generate('error' => { 'class' => e.class.name, 'message' => e.message, 'line' => line })
  exit 1
end
result.puts JSON.generate(Gitlab.instance_variable_get(:@settings).except('node'))
