# What scripts for GitLab's console take for granted of ActiveSupport: only what is listed here is played.
require 'date'
require 'json'
require 'securerandom'
require 'time'

module ActiveSupport
  # A length of time that can be counted from now.
  class Duration
    attr_reader :seconds

    def initialize(seconds) = @seconds = seconds
    def from_now = Time.now.utc + seconds
    def ago = Time.now.utc - seconds
    def since(time) = time + seconds
    def to_i = seconds.to_i
    def to_f = seconds.to_f
    def +(other) = Duration.new(seconds + (other.is_a?(Duration) ? other.seconds : other))
    def *(other) = Duration.new(seconds * other)
    def coerce(other) = [other, seconds]
  end
end

class Integer
  { second: 1, minute: 60, hour: 3600, day: 86_400, week: 604_800, month: 2_629_746, year: 31_556_952 }.each do |unit, size|
    define_method(unit) { ActiveSupport::Duration.new(self * size) }
    alias_method :"#{unit}s", unit
  end
end

class Object
  def blank? = respond_to?(:empty?) ? !!empty? : !self
  def present? = !blank?
  def presence = present? ? self : nil
  def try(name = nil, ...) = name && respond_to?(name) ? public_send(name, ...) : nil
  def in?(collection) = collection.include?(self)
end

class NilClass
  def try(*) = nil
end

class String
  def blank? = strip.empty?
  def squish = strip.gsub(/\s+/, ' ')
end

class Array
  def self.wrap(value) = value.nil? ? [] : value.respond_to?(:to_ary) ? value.to_ary : [value]

  def to_sentence
    size < 3 ? join(' and ') : "#{self[0..-2].join(', ')}, and #{last}"
  end
end

class Hash
  def symbolize_keys = transform_keys(&:to_sym)
  def stringify_keys = transform_keys(&:to_s)
  def except!(*keys) = keys.each { |key| delete(key) } && self
end

class Time
  alias plus_seconds +
  alias minus_seconds -
  def +(other) = plus_seconds(other.is_a?(ActiveSupport::Duration) ? other.seconds : other)
  def -(other) = minus_seconds(other.is_a?(ActiveSupport::Duration) ? other.seconds : other)

  # The server's time zone is UTC unless it is changed.
  module Zone
    def self.now = Time.now.utc
    def self.today = Date.current
    def self.parse(text) = Time.parse("#{text} UTC")
  end

  def self.current = now.utc
  def self.zone = Zone
  def to_fs(*) = to_s
  def past? = self < Time.now
  def future? = self > Time.now
end

class Date
  def self.current = Time.now.utc.to_date
  def self.tomorrow = current + 1
  def self.yesterday = current - 1
  def past? = self < Date.current
  def future? = self > Date.current

  alias plus_days +
  def +(other) = plus_days(other.is_a?(ActiveSupport::Duration) ? other.seconds / 86_400 : other)
end
