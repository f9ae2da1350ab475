# The parts of ActiveSupport that this project's console scripts use.
require 'date'
require 'json'
require 'time'

module ActiveSupport
  # A duration in seconds.
  Duration = Struct.new(:seconds) do
    def from_now = Time.now.utc + seconds
  end
end

class Integer
  { hour: 3600, day: 86_400 }.each do |unit, size|
    define_method(unit) { ActiveSupport::Duration.new(self * size) }
    alias_method :"#{unit}s", unit
  end
end

class Array
  def to_sentence
    size < 3 ? join(' and ') : "#{self[0..-2].join(', ')}, and #{last}"
  end
end

# The server's default time zone is UTC.
class Time
  def self.current = now.utc
end

class Date
  def self.current = Time.now.utc.to_date
  def self.tomorrow = current + 1
  def self.yesterday = current - 1
end
