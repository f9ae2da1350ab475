# Resources that the cookbooks define in resources/; their actions consist of built-in resources.
require_relative 'resources'

class Definition
  NONE = Object.new.freeze
  attr_reader :type, :cookbook, :properties, :action_blocks

  def initialize(cookbook, path)
    @cookbook = cookbook
    @type = :"#{cookbook.tr('-', '_')}_#{File.basename(path, '.rb')}"
    @properties = {}
    @action_blocks = {}
    Chef.evaluate(self, path)
  end

  def inspect
    "#<Definition #{@type}>"
  end

  def resource_name(type)
    @type = type
  end
  alias provides resource_name

  def unified_mode(*) end

  def actions(*) end

  def deprecated_property_alias(*) end

  def default_action(name = nil)
    name ? @default_action = name : @default_action || @action_blocks.keys.first
  end

  def property(name, *types, default: NONE, name_property: false, **)
    @properties[name] = { types: types.flatten, default: default, name_property: name_property }
  end

  def action(name, &block)
    @action_blocks[name] = block
  end

  def lazy(&block)
    Lazy.new(block)
  end
end

class CustomResource < Resource
  def initialize(definition, name, declared_in)
    super(definition.type, name, declared_in)
    @definition = definition
  end

  def to_hash
    @definition.properties.keys.to_h { |name| [name, property(name)] }
  end

  # The resources of its actions.
  def resources
    actions_wanted.flat_map do |action|
      block = @definition.action_blocks[action] or raise "#{self} has no action #{action}"
      Action.new(self, @definition).run(&block)
    end
  end

  def property(name)
    known = @definition.properties[name]
    return super if @given.key?(name) || known.nil?
    return @name if known[:name_property]

    known[:default].equal?(Definition::NONE) ? nil : evaluated(known[:default])
  end

  private

  def default_action
    @definition.default_action
  end

  # In Chef, nil means the default if nil is not a valid value.
  def give(name, value)
    types = @definition.properties.dig(name, :types) || []
    return super if value.is_a?(Lazy) || types.empty? || types.any? { |type| type === value }
    raise TypeError, "#{self}: #{name} is #{value.inspect}, not #{types.join(' or ')}" unless value.nil?

    @given.delete(name)
    nil
  end
end
