# What `gitlab-ctl reconfigure` makes of a gitlab.rb, by the cookbooks of a checkout of omnibus-gitlab.
#
#   ruby reconfigure.rb CHECKOUT GITLAB_RB FOLDER
#
# Writes the files that the package would write into FOLDER. Prints as JSON: keys that gitlab.rb sets and the package
# does not know, what it says of the others, recipes that ran, accounts, environments of scripts. A refusal is the
# vendor's, or a lack of what stands in for Chef here.
require_relative 'chef/chef'
require_relative 'chef/recipes'
require_relative 'chef/templates'

CHECKOUT, GITLAB_RB, FOLDER = ARGV
COOKBOOKS = "#{CHECKOUT}/files/gitlab-cookbooks".freeze
DOCUMENTED = File.read("#{CHECKOUT}/files/gitlab-config-template/gitlab.rb.template").freeze

# The cookbook and those it depends on, before it: what Chef loads. The package's build downloads runit and acme.
def with_dependencies(name, seen = Set.new)
  return [] if %w[runit acme].include?(name) || !seen.add?(name)

  names = File.read("#{COOKBOOKS}/#{name}/metadata.rb").scan(/^depends ['"](.+)['"]/).flatten.sort
  names.flat_map { |each| with_dependencies(each, seen) } << name
end

def files(folder)
  LOADED.flat_map { |name| Dir["#{COOKBOOKS}/#{name}/#{folder}/**/*.rb"].sort }
end

# A library may need one of a cookbook that comes later. Handlers and formatters are Chef's output.
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

# What only a machine with GitLab's package could answer, and the secrets, which belong into the folder.
def stand_in
  version = File.read("#{CHECKOUT}/VERSION").strip
  OmnibusHelper.define_singleton_method(:parse_current_version) { version[/\A\d+\.\d+/] }
  VersionHelper.define_singleton_method(:version) { |*, **| version }
  SELinuxHelper.define_singleton_method(:enabled?) { true }
  SecretsHelper.send(:remove_const, :SECRETS_FILE)
  SecretsHelper.const_set(:SECRETS_FILE, "#{FOLDER}/gitlab-secrets.json")
  SecretsHelper.define_singleton_method(:generate_rsa) { |_bits| OpenSSL::PKey::RSA.new(1024) }
end

# Keys that gitlab.rb sets, and the package neither has a default for nor documents nor reads.
def unknown_keys(node)
  Gitlab.settings.flat_map do |section, setting|
    next [] unless Gitlab[section].is_a?(Hash)

    defaults = node.dig(*[setting[:parent], section].compact)
    unknown = Gitlab[section].keys.reject { |key| defaults&.key?(key) || mentioned?(section, key) }
    unknown.map { |key| "#{section}['#{key}']" }
  end
end

# Some keys have no default, some that are read are not documented.
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

# As package/recipes/config.rb does, but for the place of the file; then all of `gitlab-ctl reconfigure`.
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
