# Reports what could act in a silenced copy of GitLab, and the last image that the acceptance pushed before the backup; runs in GitLab's
# console. Arguments: PROJECT (the acceptance's), RUNNER_NAME (of the copy) and BEFORE (a time, ISO 8601). Changes nothing. Prints JSON.
require 'json'
require 'time'

project_path, runner_name, before = ARGV
project = Project.find_by_full_path(project_path)

# As silence_gitlab.rb: a manual job only starts when a user starts it.
active = Ci::HasStatus::AVAILABLE_STATUSES - %w[success failed canceled skipped manual]
jobs = CommitStatus.where(status: active).reject { |job| project && job.project_id == project.id }
# Not by `where.not`, which omits runners without a description: in SQL, NULL is not different from anything.
runners = Ci::Runner.where(active: true).reject { |runner| runner.description == runner_name && runner.runner_type == 'project_type' }

# The acceptance of the copy itself runs later than `before`.
passed = project ? Ci::Pipeline.where(project_id: project.id, status: 'success').order(:id).to_a : []
pipeline = passed.select { |each| each.created_at < Time.parse(before) }.last
job = pipeline && pipeline.builds.find_by(name: 'push')
log = job ? job.trace.raw.to_s : ''

puts JSON.generate(
  silentMode: ApplicationSetting.current_without_cache.silent_mode_enabled,
  schedules: Ci::PipelineSchedule.where(active: true).map(&:id),
  jobs: jobs.map(&:id),
  runners: runners.map(&:id),
  canary: pipeline && { pipeline: pipeline.id, log: log.bytesize, pushed: log[/check push ok \S+ (\S+)/, 1] }
)
