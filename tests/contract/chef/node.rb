# A node and its attributes, as in Chef: levels, of which a higher one wins, and hashes that create missing keys.
require 'chef-utils/mash'

Mash = ChefUtils::Mash

# default['a']['b'] = 1 creates default['a'] (Chef::Node::VividMash).
class Attributes < Mash
  def [](key)
    self[key] = {} unless key?(key)
    super
  end

  protected

  # `when` does not call methods of a proxy object (Gitlab::ObjectProxy).
  def convert_value(value)
    case value
    when Attributes then value
    when Hash then Attributes.new(value)
    when Array then super
    else value
    end
  end
end

# The read-only view of a node: a merged copy of all levels, where reading creates nothing (Chef::Node::ImmutableMash).
class NodeView < Mash
  alias attribute? key?

  def self.of(value)
    case value
    when Hash then value.each_with_object(new) { |(key, inner), view| view[key] = of(inner) }
    when Array then value.map { |inner| of(inner) }
    else value
    end
  end

  # Merges the other view, whose values win.
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

  # A caller that gets a level may write to it, so the merged copy is discarded.
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

# The context of an attribute file.
class AttributeFile
  attr_reader :node

  def initialize(node)
    @node = node
  end

  def default
    @node.default
  end
end

# The machine's attributes from Ohai.
MACHINE = {
  'fqdn' => 'ip-10-42-0-10.ec2.internal', 'hostname' => 'ip-10-42-0-10', 'ipaddress' => '10.42.0.10',
  'platform' => 'redhat', 'platform_family' => 'rhel', 'platform_version' => '8.10', 'os' => 'linux',
  'init_package' => 'systemd', 'cpu' => { 'total' => 4, 'real' => 2, 'cores' => 2 },
  'memory' => { 'total' => '16000000kB' }, 'kernel' => { 'machine' => 'x86_64' },
  'filesystem' => { 'by_mountpoint' => { '/run' => { 'fs_type' => 'tmpfs' } } }, 'network' => { 'interfaces' => {} },
  'languages' => { 'ruby' => { 'host_cpu' => 'x86_64' } }
}.freeze
