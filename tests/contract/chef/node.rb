# A node and its attributes, as Chef has them: levels, of which a higher one wins, and hashes that make what is missing.
require 'chef-utils/mash'

Mash = ChefUtils::Mash

# default['a']['b'] = 1 makes default['a'] (Chef::Node::VividMash).
class Attributes < Mash
  def [](key)
    self[key] = {} unless key?(key)
    super
  end

  protected

  # `when` asks nothing of an object that stands for another one (Gitlab::ObjectProxy).
  def convert_value(value)
    case value
    when Attributes then value
    when Hash then Attributes.new(value)
    when Array then super
    else value
    end
  end
end

# What reading a node gives: a copy of all levels, with nothing made by reading (Chef::Node::ImmutableMash).
class NodeView < Mash
  alias attribute? key?

  def self.of(value)
    case value
    when Hash then value.each_with_object(new) { |(key, inner), view| view[key] = of(inner) }
    when Array then value.map { |inner| of(inner) }
    else value
    end
  end

  # The other's values win.
  def under(other)
    other.each_pair { |key, value| self[key] = [self[key], value].all?(NodeView) ? self[key].under(value) : value }
    self
  end

  def to_hash
    to_h { |key, value| [key, NodeView.plain(value)] }
  end

  def self.plain(value)
    case value
    when NodeView then value.to_hash
    when Array then value.map { |inner| plain(inner) }
    else value
    end
  end

  protected

  def convert_value(value)
    case value
    when Hash, Array then super
    else value
    end
  end
end

class Node
  LEVELS = %i[default normal override automatic].freeze

  def initialize(automatic)
    @levels = LEVELS.to_h { |level| [level, Attributes.new] }
    @levels[:automatic].update(automatic)
  end

  # Who asks for a level may write to it.
  LEVELS.each do |level|
    define_method(level) do
      @merged = nil
      @levels[level]
    end
  end
  alias override_attrs override

  def name
    self['fqdn']
  end

  def [](key)
    merged[key]
  end

  def key?(key)
    merged.key?(key)
  end
  alias attribute? key?

  def dig(*keys)
    merged.dig(*keys.map(&:to_s))
  end
  alias read dig

  def write(level, *path, key, value)
    path.inject(send(level)) { |attributes, name| attributes[name] }[key] = value
  end

  def consume_attributes(attributes)
    attributes.each_pair { |key, value| normal[key] = Chef::Mixin::DeepMerge.merge(normal[key], value) }
  end

  def logger
    Chef::Log
  end

  def inspect
    "#<Node #{name}>"
  end

  private

  def merged
    @merged ||= @levels.values.map { |level| NodeView.of(level) }.inject(:under)
  end
end

# What an attribute file may say.
class AttributeFile
  attr_reader :node

  def initialize(node)
    @node = node
  end

  def default
    @node.default
  end
end

# What Ohai says of the machine.
MACHINE = {
  'fqdn' => 'ip-10-42-0-10.ec2.internal', 'hostname' => 'ip-10-42-0-10', 'ipaddress' => '10.42.0.10',
  'platform' => 'redhat', 'platform_family' => 'rhel', 'platform_version' => '8.10', 'os' => 'linux',
  'init_package' => 'systemd', 'cpu' => { 'total' => 4, 'real' => 2, 'cores' => 2 },
  'memory' => { 'total' => '16000000kB' }, 'kernel' => { 'machine' => 'x86_64' },
  'filesystem' => { 'by_mountpoint' => { '/run' => { 'fs_type' => 'tmpfs' } } }, 'network' => { 'interfaces' => {} },
  'languages' => { 'ruby' => { 'host_cpu' => 'x86_64' } }
}.freeze
