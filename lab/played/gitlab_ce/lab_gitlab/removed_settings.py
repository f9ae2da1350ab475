"""Settings that 17.10 no longer takes: reconfigure stops at them.

Source: omnibus-gitlab 17.10.4+ce.0, package/libraries/deprecations.rb, without the parts that CE has not got.
"""

from typing import Any

_OBJECT_STORES = ("artifacts", "external_diffs", "lfs", "uploads", "packages", "dependency_proxy")

REMOVED: dict[str, tuple[str, ...]] = {
    "actioncable": ("enable",),
    "gitaly": (
        *("auth_token", "auth_transitioning", "certificate_path", "cgroups_count", "cgroups_cpu_enabled"),
        *("cgroups_cpu_shares", "cgroups_hierarchy_root", "cgroups_memory_bytes", "cgroups_memory_enabled"),
        *("cgroups_memory_limit", "cgroups_mountpoint", "cgroups_repositories_count"),
        *("cgroups_repositories_cpu_shares", "cgroups_repositories_memory_bytes", "concurrency"),
        *("custom_hooks_dir", "daily_maintenance_disabled", "daily_maintenance_duration"),
        *("daily_maintenance_start_hour", "daily_maintenance_start_minute", "daily_maintenance_storages"),
        *("git_bin_path", "git_catfile_cache_size", "gitconfig", "gpg_signing_key_path"),
        *("graceful_restart_timeout", "internal_socket_dir", "key_path", "listen_addr", "log_directory"),
        *("logging_format", "logging_level", "logging_ruby_sentry_dsn", "logging_sentry_dsn"),
        *("logging_sentry_environment", "pack_objects_cache_dir", "pack_objects_cache_enabled"),
        *("pack_objects_cache_max_age", "prometheus_grpc_latency_buckets", "prometheus_listen_addr"),
        *("rate_limiting", "ruby_graceful_restart_timeout", "ruby_max_rss", "ruby_num_workers"),
        *("ruby_restart_delay", "ruby_rugged_git_config_search_path", "runtime_dir", "socket_path", "storage"),
        *("tls_listen_addr", "use_bundled_git"),
    ),
    "gitlab_pages": ("daemon-inplace-chroot", "domain_config_source", "http_proxy", "use_legacy_storage"),
    "gitlab_rails": (
        *("analytics_instance_statistics_count_job_trigger_worker_cron", "enable_jemalloc"),
        *("extra_piwik_site_id", "extra_piwik_url", "pseudonymizer_manifest"),
        *("pseudonymizer_upload_connection", "pseudonymizer_upload_remote_directory"),
        "pseudonymizer_worker_cron",
        *(f"{store}_object_store_direct_upload" for store in _OBJECT_STORES),
        *(f"{store}_object_store_background_upload" for store in _OBJECT_STORES),
    ),
    "gitlab_shell": ("custom_hooks_dir",),
    "nginx": ("gzip",),
    "postgresql": ("data_dir",),
    "redis": ("client_output_buffer_limit_slave",),
    "sidekiq": ("cluster", "experimental_queue_selector"),
}
REMOVED_SECTIONS = ("omnibus_gitconfig", "repmgr", "repmgrd", "unicorn")


def removed_settings(settings: dict[str, Any]) -> list[str]:
    """One line for each setting that is used although it was removed."""
    keys = [
        f"{section}['{key}']"
        for section, removed in REMOVED.items()
        for key in removed
        if settings[section].get(key) not in (None, {})
    ]
    keys += [section for section in REMOVED_SECTIONS if settings[section]]
    return [f"* {key} was removed." for key in keys]
