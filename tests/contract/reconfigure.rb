# Runs the cookbooks of an omnibus-gitlab checkout on a gitlab.rb, like `gitlab-ctl reconfigure`.
#
#   ruby reconfigure.rb CHECKOUT GITLAB_RB FOLDER
#
# Writes the files that the package would write to FOLDER. Prints as JSON: keys of gitlab.rb that the package does not
# know, its messages, recipes that ran, accounts, environments of scripts. A refusal is an error of the cookbooks, or of
# a feature of Chef that chef/ lacks.
require_relative 'chef/chef'
require_relative 'chef/recipes'
require_relative 'chef/templates'

CHECKOUT, GITLAB_RB, FOLDER = ARGV
COOKBOOKS = "#{CHECKOUT}/files/gitlab-cookbooks".freeze
DOCUMENTED = File.read("#{CHECKOUT}/files/gitlab-config-template/gitlab.rb.template").freeze

# The cookbook, preceded by its dependencies, as Chef loads them. The package's build downloads runit and acme.
def with_dependencies(name, seen = Set.new)
  return [] if %w[runit acme].include?(name) || !seen.add?(name)

  names = File.read("#{COOKBOOKS}/#{name}/metadata.rb").scan(/^depends ['"](.+)['"]/).flatten.sort
  names.flat_map { |each| with_dependencies(each, seen) } << name
end

def files(folder)
  LOADED.flat_map { |name| Dir["#{COOKBOOKS}/#{name}/#{folder}/**/*.rb"].sort }
end

# A library may depend on one of a later cookbook. Handlers and formatters only affect Chef's output.
def load_libraries
  pending = files('libraries').grep_v(%r{/handlers/|/formatters/|/bash_hide_env})
  until pending.empty?
    failed = pending.filter_map do |file|
      require file
      nil
    rescue NameError, LoadError => e
      [file, e]
    end
    raise failed.first.last if failed.size == pending.size

    pending = failed.map(&:first)
  end
end

# Replaces queries that need a machine with GitLab's package, and the path of the secrets file.
def stand_in
  version = File.read("#{CHECKOUT}/VERSION").strip
  OmnibusHelper.define_singleton_method(:parse_current_version) { version[/\A\d+\.\d+/] }
  VersionHelper.define_singleton_method(:version) { |*, **| version }
  SELinuxHelper.define_singleton_method(:enabled?) { true }
  SecretsHelper.send(:remove_const, :SECRETS_FILE)
  SecretsHelper.const_set(:SECRETS_FILE, "#{FOLDER}/gitlab-secrets.json")
  SecretsHelper.define_singleton_method(:generate_rsa) { |_bits| OpenSSL::PKey::RSA.new(1024) }
end

# Keys of gitlab.rb for which the package has no default, no documentation and no code that reads them.
def unknown_keys(node)
  Gitlab.settings.flat_map do |section, setting|
    next [] unless Gitlab[section].is_a?(Hash)

    defaults = node.dig(*[setting[:parent], section].compact)
    unknown = Gitlab[section].keys.reject { |key| defaults&.key?(key) || mentioned?(section, key) }
    unknown.map { |key| "#{section}['#{key}']" }
  end
end

# Some keys have no default, and some that are read are not documented.
def mentioned?(section, key)
  documented = /^#?\s*#{section}\[['"]#{Regexp.escape(key)}['"]\]/
  DOCUMENTED.match?(documented) || LIBRARIES.include?("['#{section}']['#{key}']")
end

def write(path, text)
  file = File.join(FOLDER, path)
  FileUtils.mkdir_p(File.dirname(file))
  File.write(file, text)
end

def write_files(resources)
  resources.each do |resource|
    next if resource.actions_wanted.include?(:delete)

    path = resource.path || resource.name
    case resource.resource_type
    when :template then write(path, Template.text(resource, COOKBOOKS))
    when :file then write(path, resource.content.to_s)
    end
  end
end

# The same as package/recipes/config.rb with another path of gitlab.rb, then all of `gitlab-ctl reconfigure`.
def reconfigure
  node = Node.new(MACHINE)
  files('attributes').each { |file| Chef.evaluate(AttributeFile.new(node), file) }
  Gitlab[:node] = node
  Services.add_services('gitlab', Services::BaseServices.list)
  Gitlab.from_file(GITLAB_RB)
  unknown = unknown_keys(node)
  node.consume_attributes(Gitlab.generate_config(node['fqdn']))

  run = Run.new(node, COOKBOOKS, files('resources'), done: %w[gitlab::config package::config])
  run.include('gitlab::default')
  resources = run.converge
  write_files(resources)
  { unknown: unknown, recipes: run.included.to_a, accounts: accounts(resources), environments: environments(resources) }
end

def accounts(resources)
  resources.select { |each| %i[user group].include?(each.resource_type) }
           .map { |each| [each.resource_type, each.username || each.group_name, each.uid || each.gid] }
end

def environments(resources)
  resources.select { |each| each.resource_type == :bash_hide_env }.to_h { |each| [each.name, each.environment] }
end

LOADED = with_dependencies('gitlab')
LIBRARIES = files('libraries').map { |file| File.read(file) }.join.freeze
load_libraries
stand_in
begin
  made = reconfigure
rescue StandardError, ScriptError => e
  made = { refusal: "#{e.message} (#{e.class}) at #{e.backtrace.first}" }
end
puts JSON.generate(made.merge(said: LoggingHelper.messages))
