# `gitlab-rails runner`: evaluates a script with the stand-in's classes. FD is a socket to the application's models.
# Usage: console.rb FD CODE_OR_FILE [ARGUMENT...]
require 'socket'
$LOAD_PATH.unshift(__dir__)
require 'active_support'

module OpenSSL
  module Cipher
    class CipherError < StandardError; end
  end
end

# Calls to the application: one line of JSON each way.
module Console
  class << self
    attr_reader :version

    def connect(descriptor)
      @socket = UNIXSocket.for_fd(descriptor)
      @socket.close_on_exec = true
      hello = call('hello')
      @version = hello['version']
      @columns = hello['columns']
    end

    def columns(model) = @columns.fetch(model)

    def call(name, **arguments)
      @socket.puts(JSON.generate('call' => name, 'arguments' => plain(arguments)))
      answer = JSON.parse(@socket.gets || raise('the application ended'))
      return answer['result'] unless answer['error']

      raise Object.const_get(answer['error']), answer['message']
    end

    private

    # Times are sent in Ruby's own format, not ISO 8601, as in the validations of the real GitLab.
    def plain(value)
      case value
      when Hash then value.to_h { |key, inner| [key.to_s, plain(inner)] }
      when Array then value.map { |inner| plain(inner) }
      when Time, Date, Symbol then value.to_s
      when nil, true, false, Numeric, String then value
      else raise ArgumentError, "#{value.class} cannot be stored"
      end
    end
  end
end

descriptor, script, *arguments = ARGV
ARGV.replace(arguments)
Console.connect(Integer(descriptor))
require 'records'
require 'gitlab'

begin
  if script == '-'
    eval($stdin.read, TOPLEVEL_BINDING, 'stdin')
  elsif File.exist?(script)
    $PROGRAM_NAME = script
    load(script)
  else
    eval(script, TOPLEVEL_BINDING, 'runner', 1)
  end
rescue SyntaxError => e
  abort "Please specify a valid ruby command or the path of a script to run.\n\n#{e.message}"
end
