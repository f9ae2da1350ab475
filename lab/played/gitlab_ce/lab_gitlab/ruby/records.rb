# Records as console scripts see them. The application validates and stores them.

module ActiveModel
  class UnknownAttributeError < NoMethodError; end
end

module ActiveRecord
  class ActiveRecordError < StandardError; end
  class ConnectionNotEstablished < ActiveRecordError; end

  class RecordInvalid < ActiveRecordError
    def initialize(record)
      super("Validation failed: #{record.errors.full_messages.join(', ')}")
    end
  end

  Errors = Struct.new(:full_messages) do
    def empty? = full_messages.empty?
  end

  # A query that is executed when its result is needed.
  class Relation
    include Enumerable

    # The result of `where` without conditions.
    Chain = Struct.new(:relation) do
      def not(conditions) = relation.refined(unlike: conditions.transform_keys(&:to_s))
    end

    def initialize(model, where: {}, unlike: {}, scopes: [])
      @model = model
      @where = where
      @unlike = unlike
      @scopes = scopes
    end

    def refined(where: {}, unlike: {}, scopes: [])
      self.class.new(@model, where: @where.merge(where), unlike: @unlike.merge(unlike), scopes: @scopes + scopes)
    end

    def where(conditions = nil) = conditions ? refined(where: conditions.transform_keys(&:to_s)) : Chain.new(self)
    def scope(name) = refined(scopes: [name.to_s])
    def all = self

    # Only the order by id is supported.
    def order(column) = column == :id ? self : raise(NotImplementedError, "the lab does not support order by #{column}")

    def each(&) = call('select').map { |row| @model.load(row) }.each(&)
    def update_all(changes) = call('update_all', changes: changes)
    def delete_all = call('delete_all')
    def find_by(conditions) = where(conditions).first
    def pluck(column) = map(&column)
    def create!(attributes) = @model.new(@where.merge(attributes)).tap(&:save!)
    def destroy_all = each(&:destroy)

    private

    def call(name, **more) = Console.call(name, model: @model.name, where: @where, unlike: @unlike, scopes: @scopes, **more)
  end

  class Base
    class << self
      %i[where order all find_by first each count pluck create! update_all delete_all destroy_all].each do |name|
        define_method(name) { |*args, **options, &block| relation.public_send(name, *args, **options, &block) }
      end

      def relation = self::Relation.new(self)
      def new_from(answer, attributes) = answer['errors'].empty? ? load(answer['record']) : new(attributes).refused(answer['errors'])
      def load(row) = allocate.tap { |record| record.send(:loaded, row) }

      # Defines accessors for the application's columns, and for attributes that are set but not stored.
      def columns(virtual: [])
        kinds = Console.columns(name)
        kinds.each_key do |column|
          define_method(column) { cast(@attributes[column], kinds[column]) }
          alias_method :"#{column}?", column
        end
        virtual.each { |column| define_method(column) { @attributes[column.to_s] } }
        (kinds.keys + virtual).each { |column| define_method(:"#{column}=") { |value| assign(column, value) } }
      end

      # Each model has its own relation class, so that a scope exists only for its model.
      def scope(*names)
        const_set(:Relation, Class.new(ActiveRecord::Relation))
        names.each do |name|
          self::Relation.define_method(name) { scope(name) }
          define_singleton_method(name) { relation.public_send(name) }
        end
      end
    end

    Relation = ActiveRecord::Relation
    attr_reader :errors

    def initialize(attributes = {})
      loaded({})
      assign_attributes(attributes)
    end

    def id = @attributes['id']
    def persisted? = !id.nil?

    def save
      answer = Console.call('save', model: self.class.name, record_id: id, attributes: @changed)
      refused(answer['errors'])
      return false unless errors.empty?

      loaded(answer['record'])
      true
    end

    def save! = save || raise(RecordInvalid, self)
    def update(attributes) = assign_attributes(attributes) && save
    def update!(attributes) = update(attributes) || raise(RecordInvalid, self)
    def destroy = Console.call('destroy', model: self.class.name, record_id: id)

    def refused(messages)
      @errors = Errors.new(messages)
      self
    end

    # Keeps attributes out of logs.
    def inspect = "#<#{self.class.name} id: #{id.inspect}>"

    private

    def loaded(row)
      @attributes = row
      @changed = {}
      refused([])
    end

    def assign(name, value)
      @attributes[name.to_s] = @changed[name.to_s] = value
    end

    def assign_attributes(attributes)
      attributes.each do |name, value|
        unless respond_to?(:"#{name}=")
          raise ActiveModel::UnknownAttributeError, "unknown attribute '#{name}' for #{self.class.name}."
        end

        public_send(:"#{name}=", value)
      end
    end

    def cast(value, kind)
      return value unless value.is_a?(String)

      { 'time' => Time, 'date' => Date }[kind]&.parse(value) || value
    end
  end
end

ApplicationRecord = ActiveRecord::Base
