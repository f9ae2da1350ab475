# Renders the vendor's ERB files with the context that Chef provides.
class Template
  attr_reader :node

  # The template's variables become instance variables, so those of this class have a prefix.
  def initialize(cookbooks, cookbook, node, variables, helpers: [])
    @_cookbooks, @_cookbook, @_variables, @node = cookbooks, cookbook, variables, node
    variables.each_pair { |name, value| instance_variable_set("@#{name}", value) }
    helpers.each { |helper| extend(helper) }
  end

  # Returns the text of a `template` resource.
  def self.text(resource, cookbooks)
    helpers = [resource.helpers].flatten.compact
    resource.template_helpers.each { |name, block| helpers << Module.new { define_method(name, &block) } }
    template = new(cookbooks, resource.cookbook || resource.declared_in.cookbook, resource.node,
                   resource.variables || {}, helpers: helpers)
    template.render(resource.source || "#{File.basename(resource.path || resource.name)}.erb")
  end

  def render(source, cookbook: @_cookbook, variables: {})
    unless cookbook == @_cookbook && variables.empty?
      return Template.new(@_cookbooks, cookbook, @node, @_variables.merge(variables)).render(source)
    end

    file = %W[default/#{source} #{source}].map { |each| "#{@_cookbooks}/#{cookbook}/templates/#{each}" }
                                          .find { |each| File.exist?(each) }
    raise "no template #{source} in #{cookbook}" if file.nil?

    ERB.new(File.read(file), trim_mode: '-').tap { |erb| erb.filename = file }.result(binding)
  end
end
