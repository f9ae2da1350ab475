# Recipes, which declare resources in order.
require_relative 'custom_resources'

class Run
  attr_reader :node, :collection, :definitions, :included

  # `done`: recipes that are treated as already run.
  def initialize(node, cookbooks, resource_files, done: [])
    @node, @cookbooks = node, cookbooks
    @collection = []
    @included = Set.new(done)
    @definitions = resource_files.to_h do |path|
      definition = Definition.new(path.delete_prefix("#{cookbooks}/").split('/').first, path)
      [definition.type, definition]
    end
  end

  def include(name)
    cookbook, recipe = name.split('::')
    recipe ||= 'default'
    return unless @included.add?("#{cookbook}::#{recipe}")

    Chef.evaluate(Recipe.new(self, cookbook), "#{@cookbooks}/#{cookbook}/recipes/#{recipe}.rb")
  end

  # Returns all resources that would be applied, with those that they consist of.
  def converge(resources = @collection)
    resources.flat_map do |resource|
      next [] if resource.actions_wanted.empty? || !resource.wanted?

      [resource, *converge(inner(resource))]
    end
  end

  private

  def inner(resource)
    return resource.resources if resource.is_a?(CustomResource)

    resource.resource_type == :runit_service && resource.actions_wanted.include?(:enable) ? service_files(resource) : []
  end

  # The files that the cookbook runit, which the package's build downloads, creates for a service.
  def service_files(service)
    source = "sv-#{service.run_template_name || service.template_name || service.name}"
    files = { 'run' => { options: service.options || {} }, 'log-config' => service.log_options || {} }
    files.map do |file, variables|
      path = "/opt/gitlab/sv/#{service.name}/#{file.tr('-', '/')}"
      Resource.new(:template, path, service.declared_in).tap do |template|
        template.source("#{source}-#{file}.erb")
        template.cookbook(service.cookbook) if service.cookbook
        template.variables(variables)
      end
    end
  end
end

class Recipe
  attr_reader :cookbook

  def initialize(run, cookbook)
    @run, @cookbook = run, cookbook
  end

  def inspect
    "#<Recipe of #{@cookbook}>"
  end

  def node
    @run.node
  end

  def params
    {}
  end

  def include_recipe(name)
    @run.include(name)
  end

  def lazy(&block)
    Lazy.new(block)
  end

  def resources(name)
    @run.collection.find { |resource| resource.to_s == name } or raise Chef::Exceptions::ResourceNotFound, name
  end
  alias find resources

  def run_context
    self
  end

  def resource_collection
    self
  end

  # Any other method is an error in the recipe or a feature of Chef that this stand-in lacks.
  def method_missing(type, name = '', *, &block)
    resource = made(type, name) or return super
    resource.instance_eval(&block) if block
    collection << resource
    resource
  end

  def respond_to_missing?(type, *)
    Resource::BUILT_IN.include?(type) || @run.definitions.key?(type)
  end

  private

  def collection
    @run.collection
  end

  def made(type, name)
    return Resource.new(type, name, self) if Resource::BUILT_IN.include?(type)

    @run.definitions.key?(type) ? CustomResource.new(@run.definitions[type], name, self) : nil
  end
end

# The context of an action's block.
class Action < Recipe
  attr_reader :new_resource, :collection

  def initialize(resource, definition)
    super(resource.declared_in.instance_variable_get(:@run), resource.declared_in.cookbook)
    @new_resource, @definition = resource, definition
    @collection = []
  end

  def run(&block)
    instance_exec(&block)
    @collection
  end

  def property_is_set?(name)
    @new_resource.property_is_set?(name)
  end

  # A method that the resource's file defines; otherwise as in a recipe.
  def method_missing(name, *values, &block)
    return super unless @definition.singleton_methods(false).include?(name)

    @definition.public_send(name, *values, &block)
  end
end
