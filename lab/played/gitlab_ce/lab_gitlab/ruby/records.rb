# Records as a console script sees them. What is stored, and whether it may be, is decided on the other side of the pipe.

module ActiveModel
  class UnknownAttributeError < NoMethodError; end
end

module ActiveRecord
  class ActiveRecordError < StandardError; end
  class RecordNotFound < ActiveRecordError; end
  class RecordNotSaved < ActiveRecordError; end
  class StatementInvalid < ActiveRecordError; end
  class ConnectionNotEstablished < ActiveRecordError; end

  class RecordInvalid < ActiveRecordError
    attr_reader :record

    def initialize(record)
      @record = record
      super("Validation failed: #{record.errors.full_messages.join(', ')}")
    end
  end

  class Errors
    include Enumerable

    def initialize = @messages = []
    def replace(messages) = @messages = messages
    def full_messages = @messages
    def each(&) = @messages.each(&)
    def empty? = @messages.empty?
    def any?(&) = @messages.any?(&)
    def size = @messages.size
    alias count size
  end

  # A question about a table that is asked when its answer is needed.
  class Relation
    include Enumerable

    def initialize(model, query = { where: {}, excluding: {}, scopes: [], order: [], limit: nil })
      @model = model
      @query = query
    end

    def where(conditions = nil) = conditions.nil? ? WhereChain.new(self) : with(where: equalities(conditions))
    def excluding(conditions) = with(excluding: equalities(conditions))
    def scope(name) = with(scopes: [name.to_s])
    def all = self
    def limit(count) = with(limit: count)
    def reload = dup
    def to_a = Console.call('select', model: @model.name, **@query).map { |row| @model.load(row) }
    alias to_ary to_a
    alias load to_a

    def order(*columns)
      with(order: columns.flat_map { |column| column.is_a?(Hash) ? column.map { |pair| pair.map(&:to_s) } : [[column.to_s, 'asc']] })
    end

    def each(&) = to_a.each(&)
    alias find_each each
    def empty? = to_a.empty?
    def any?(&block) = block ? super : !empty?
    def none?(&block) = block ? super : empty?
    def exists?(conditions = {}) = where(conditions).any?
    def size = to_a.size
    alias length size
    def count(*args, &block) = args.empty? && !block ? size : super
    def ids = pluck(:id)

    def pluck(*columns)
      map { |record| columns.size == 1 ? record.public_send(columns.first) : columns.map { |column| record.public_send(column) } }
    end

    def first(count = nil)
      ordered = @query[:order].empty? ? order(:id) : self
      count ? ordered.limit(count).to_a : ordered.limit(1).to_a.first
    end

    def last
      @query[:order].empty? ? order(id: :desc).limit(1).to_a.first : to_a.last
    end

    def find_by(conditions) = where(conditions).limit(1).to_a.first
    def find_by!(conditions) = find_by(conditions) || raise(RecordNotFound, "Couldn't find #{@model.name}")
    def find(id) = find_by(id: id) || raise(RecordNotFound, "Couldn't find #{@model.name} with 'id'=#{id}")

    def new(attributes = {}) = @model.new(@query[:where].merge(attributes.transform_keys(&:to_s)))
    alias build new
    def create(attributes = {}) = new(attributes).tap(&:save)
    def create!(attributes = {}) = new(attributes).tap(&:save!)
    def find_or_create_by!(attributes) = find_by(attributes) || create!(attributes)
    def update_all(attributes) = each { |record| record.update!(attributes) }.size
    def destroy_all = to_a.each(&:destroy)
    def delete_all = destroy_all.size
    def inspect = "#<ActiveRecord::Relation #{to_a.inspect}>"

    private

    def with(changes)
      query = @query.dup
      changes.each do |part, value|
        query[part] = case query[part]
                      when Hash then query[part].merge(value)
                      when Array then query[part] + value
                      else value
                      end
      end
      self.class.new(@model, query)
    end

    def equalities(conditions)
      raise NotImplementedError, 'the lab plays conditions given as a hash only' unless conditions.is_a?(Hash)

      conditions.to_h do |name, value|
        value.is_a?(Base) ? ["#{name}_id", value.id] : [name.to_s, value.is_a?(Relation) ? value.to_a : value]
      end
    end
  end

  class WhereChain
    def initialize(relation) = @relation = relation
    def not(conditions) = @relation.excluding(conditions)
  end

  class Base
    class << self
      def relation = self::Relation.new(self)

      %i[
        where order limit all find find_by find_by! first last each find_each count exists? any? none? empty? pluck ids
        create create! find_or_create_by! update_all destroy_all delete_all
      ].each { |name| define_method(name) { |*args, **options, &block| relation.public_send(name, *args, **options, &block) } }

      def columns(*names, times: [], dates: [], booleans: [])
        @column_names = (%i[id] + names + times + dates + booleans).map(&:to_s)
        (names + times + dates + booleans + %i[id]).each do |name|
          define_method(name) { self.class.cast(@attributes[name.to_s], times.include?(name), dates.include?(name)) }
          define_method(:"#{name}=") { |value| assign(name, value) }
        end
        booleans.each { |name| alias_method :"#{name}?", name }
      end

      def column_names = @column_names || superclass.column_names

      def virtual(*names)
        @virtual_names = names.map(&:to_s)
        names.each do |name|
          define_method(name) { @attributes[name.to_s] }
          define_method(:"#{name}=") { |value| assign(name, value) }
        end
      end

      def virtual_names = @virtual_names || []

      # Each model has relations of its own, so that a scope is known only where it belongs.
      def scope(*names)
        const_set(:Relation, Class.new(ActiveRecord::Relation)) unless const_defined?(:Relation, false)
        names.each do |name|
          self::Relation.define_method(name) { scope(name) }
          define_singleton_method(name) { relation.public_send(name) }
        end
      end

      def belongs_to(name, model, key = "#{name}_id")
        define_method(name) { (id = @attributes[key]) && Object.const_get(model).find_by(id: id) }
        define_method(:"#{name}=") { |record| assign(key, record&.id) }
      end

      def has_many(name, model, key)
        define_method(name) { Object.const_get(model).where(key => id) }
      end

      def load(row) = allocate.tap { |record| record.send(:loaded, row) }

      def cast(value, time, date)
        return value unless value.is_a?(String)

        if time then Time.parse(value)
        elsif date then Date.parse(value)
        else value
        end
      end
    end

    Relation = ActiveRecord::Relation
    attr_reader :attributes, :errors

    def initialize(attributes = {})
      @attributes = {}
      @changed = {}
      @errors = Errors.new
      attributes.each { |name, value| assign_attribute(name, value) }
    end

    def persisted? = !id.nil? && !@destroyed
    def new_record? = id.nil?
    def destroyed? = !!@destroyed
    def changed? = !@changed.empty?
    def valid? = errors.empty?
    def invalid? = !valid?
    def [](name) = public_send(name)
    def ==(other) = other.instance_of?(self.class) && !id.nil? && id == other.id
    alias eql? ==
    def hash = [self.class, id].hash

    def save(**)
      answer = Console.call('save', model: self.class.name, record_id: id, attributes: @changed)
      errors.replace(answer['errors'])
      return false unless errors.empty?

      loaded(answer['record'])
      true
    end

    def save!(**) = save || raise(RecordInvalid, self)
    def update(attributes) = attributes.each { |name, value| assign_attribute(name, value) } && save
    def update!(attributes) = update(attributes) || raise(RecordInvalid, self)
    alias assign_attributes update
    def update_attribute(name, value) = update(name => value)
    alias update_column update_attribute
    def update_columns(attributes) = update(attributes)
    def reload = loaded(self.class.find(id).attributes) && self

    def destroy(*)
      Console.call('destroy', model: self.class.name, record_id: id)
      @destroyed = true
      self
    end
    alias destroy! destroy
    alias delete destroy

    # Never shows what a log must not hold.
    def inspect = "#<#{self.class.name} id: #{id.inspect}>"

    private

    def loaded(row)
      @attributes = row
      @changed = {}
      @errors ||= Errors.new
      self
    end

    def assign(name, value)
      @attributes[name.to_s] = value
      @changed[name.to_s] = value
    end

    def assign_attribute(name, value)
      unless respond_to?(:"#{name}=")
        raise ActiveModel::UnknownAttributeError, "unknown attribute '#{name}' for #{self.class.name}."
      end

      public_send(:"#{name}=", value)
    end
  end
end

ApplicationRecord = ActiveRecord::Base
