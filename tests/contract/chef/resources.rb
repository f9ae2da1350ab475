# Resources of a recipe, which are recorded but never applied.
Lazy = Struct.new(:block)

class Resource
  BUILT_IN = %i[
    bash bash_hide_env cookbook_file directory execute file group link log remote_file ruby_block runit_service service
    systemd_unit template user
  ].freeze
  DEFAULT_ACTIONS = { execute: :run, service: :nothing, runit_service: :enable }.freeze

  # Otherwise properties with these names would call Ruby's own methods.
  %i[exec fork format load open p print puts select sleep spawn system test timeout trap].each do |name|
    undef_method(name) if private_method_defined?(name)
  end
  attr_reader :resource_type, :name, :declared_in, :given, :template_helpers

  def initialize(resource_type, name, declared_in)
    @resource_type, @name, @declared_in = resource_type, name, declared_in
    @given = {}
    @guards = []
    @template_helpers = {}
  end

  def to_s
    "#{@resource_type}[#{@name}]"
  end
  alias inspect to_s

  # A guard is a block or command with the expected result.
  def only_if(command = nil, **, &block)
    @guards << [command || block, true]
  end

  def not_if(command = nil, **, &block)
    @guards << [command || block, false]
  end

  # Nothing is applied, so nothing changes.
  def notifies(*) end

  def subscribes(*) end

  def run_action(*) end

  def lazy(&block)
    Lazy.new(block)
  end

  # Defines a helper method of a template; in other resources `helper` is a property.
  def helper(*values, &block)
    block ? @template_helpers[values.first] = block : method_missing(:helper, *values)
  end

  def property_is_set?(name)
    @given.key?(name)
  end

  def actions_wanted
    [@given.fetch(:action, default_action)].flatten - [:nothing]
  end

  # Commands are not run: a resource whose guard is a command counts as wanted.
  def wanted?
    @guards.all? { |guard, meant| !guard.is_a?(Proc) || !!@declared_in.instance_exec(&guard) == meant }
  end

  def method_missing(name, *values, **named, &block)
    values << named unless named.empty?
    return property(name) if values.empty? && block.nil?

    give(name.to_s.delete_suffix('=').to_sym, values.empty? ? block : values.size == 1 ? values.first : values)
  end

  def respond_to_missing?(*)
    true
  end

  # Returns the property's value; nil if it has none.
  def property(name)
    return evaluated(@given[name]) if @given.key?(name)

    %i[new_resource node params].include?(name) ? @declared_in.public_send(name) : nil
  end

  private

  def default_action
    DEFAULT_ACTIONS.fetch(@resource_type, :create)
  end

  def evaluated(value)
    value.is_a?(Lazy) ? instance_exec(&value.block) : value
  end

  def give(name, value)
    @given[name] = value
  end
end
