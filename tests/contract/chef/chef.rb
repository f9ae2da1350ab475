# Stand-in for the parts of Chef that GitLab's cookbooks use. No command is run: almost every one fails, as on a machine
# without GitLab.
require 'base64'
require 'date'
require 'digest'
require 'erb'
require 'etc'
require 'fileutils'
require 'ipaddr'
require 'json'
require 'open3'
require 'openssl'
require 'ostruct'
require 'pathname'
require 'resolv'
require 'securerandom'
require 'set'
require 'shellwords'
require 'socket'
require 'time'
require 'uri'
require 'yaml'
require 'mixlib/config'
require_relative 'node'

# The cookbooks' files require these.
%w[
  chef/handler chef/json_compat chef/log chef/mash chef/mixin/deep_merge chef/resource chef/resource/script
  chef/resource/service mixlib/shellout rainbow tomlib
].each { |feature| $LOADED_FEATURES << "#{feature}.rb" }

class Chef
  module Mixin
    module DeepMerge
      module_function

      # Returns a new Mash in which values of `over` win.
      def merge(under, over)
        return over unless under.is_a?(Hash) && over.is_a?(Hash)

        over.each_with_object(Mash.new(under)) do |(key, value), all|
          all[key] = all.key?(key) ? merge(all[key], value) : value
        end
      end

      def deep_merge!(over, under)
        under.replace(merge(under, over))
      end
    end
  end

  class JSONCompat
    class << self
      def from_json(text)
        JSON.parse(text)
      end
      alias parse from_json

      def to_json_pretty(value)
        JSON.pretty_generate(value)
      end

      def to_json(value)
        JSON.generate(value)
      end
    end
  end

  # Not recorded: the package's own LoggingHelper has all messages that matter.
  module Log
    %i[debug info warn error fatal].each { |level| define_singleton_method(level) { |*| nil } }
  end

  module Exceptions
    class ResourceNotFound < StandardError; end
  end

  class Node
    VividMash = Attributes
  end

  def self.event_handler; end

  # Evaluates a vendor file. The parameters have a prefix because local variables would hide names in the file.
  def self.evaluate(_itself, _path)
    _itself.instance_eval(File.read(_path), _path)
  end
end

NOT_RUN = OpenStruct.new(stdout: '', stderr: '', exitstatus: 1, error?: true, success?: false).freeze
NO_CONTEXTS = OpenStruct.new(stdout: '', stderr: '', exitstatus: 0, error?: false, success?: true).freeze

module Mixlib
  class ShellOut
    def initialize(*command, **)
      @answer = command.flatten.join(' ') == 'semanage fcontext -l' ? NO_CONTEXTS : NOT_RUN
    end

    def run_command
      self
    end

    %i[stdout stderr exitstatus error?].each { |name| define_method(name) { @answer[name] } }
  end
end

module Open3
  class << self
    def capture3(*)
      ['', '', NOT_RUN]
    end

    def popen2e(*)
      ['', '', NOT_RUN]
    end
  end
end

# Writes JSON instead of TOML.
module Tomlib
  def self.dump(value, **)
    JSON.pretty_generate(value)
  end
end

module Ohai
  class System
    def all_plugins(*) end

    def data
      MACHINE
    end
  end
end
