# Silences a restored copy of GitLab while its Sidekiq is off; runs in GitLab's console. Idempotent. Prints JSON: how many records changed.
require 'json'

Gitlab::CurrentSettings.update!(silent_mode_enabled: true)

# Before the pipelines: a schedule that is due would create another one.
schedules = Ci::PipelineSchedule.where(active: true).update_all(active: false)

# Not by Ci::CancelPipelineService: it queues work for Sidekiq, and a running job would wait for its runner (`canceling`). A manual job
# starts only on request. Runners take their jobs from Ci::PendingBuild (Ci::Queue::PendingBuildsStrategy).
at_rest = %w[success failed canceled skipped manual]
# For these there is an index; to find what is not at rest, PostgreSQL would read all jobs, from a volume that is still being loaded.
active = Ci::HasStatus::AVAILABLE_STATUSES - at_rest
canceled = { status: 'canceled', finished_at: Time.current }
jobs = CommitStatus.where(status: active).update_all(canceled)
pipelines = Ci::Pipeline.where(status: active).update_all(canceled)
[Ci::PendingBuild, Ci::RunningBuild].each(&:delete_all)

runners = Ci::Runner.where(active: true).update_all(active: false)
environments = Environment.where.not(auto_stop_at: nil).update_all(auto_stop_at: nil)

puts JSON.generate(
  silentMode: ApplicationSetting.current_without_cache.silent_mode_enabled,
  schedules: schedules, jobs: jobs, pipelines: pipelines, runners: runners, environments: environments
)
