//! Revisions of the protocol at which something was added (ClickHouse, `src/Core/ProtocolDefines.h`). Both sides use the
//! lower of theirs.

pub(super) const BLOCK_INFO: u64 = 51903;
pub(super) const TOTAL_ROWS_IN_PROGRESS: u64 = 51554;
pub(super) const QUOTA_KEY: u64 = 54060;
pub(super) const VERSION_PATCH: u64 = 54401;
pub(super) const CLIENT_WRITE_INFO: u64 = 54420;
pub(super) const SETTINGS_AS_STRINGS: u64 = 54429;
pub(super) const INTERSERVER_SECRET: u64 = 54441;
pub(super) const OPENTELEMETRY: u64 = 54442;
pub(super) const X_FORWARDED_FOR: u64 = 54443;
pub(super) const REFERER: u64 = 54447;
pub(super) const DISTRIBUTED_DEPTH: u64 = 54448;
pub(super) const QUERY_START_TIME: u64 = 54449;
pub(super) const PARALLEL_REPLICAS: u64 = 54453;
pub(super) const CUSTOM_SERIALIZATION: u64 = 54454;
pub(super) const ADDENDUM: u64 = 54458;
pub(super) const PARAMETERS: u64 = 54459;
pub(super) const QUERY_TIME_IN_PROGRESS: u64 = 54460;
pub(super) const TOTAL_BYTES_IN_PROGRESS: u64 = 54463;
pub(super) const ROWS_BEFORE_AGGREGATION: u64 = 54469;
pub(super) const CHUNKED_PACKETS: u64 = 54470;
pub(super) const VERSIONED_PARALLEL_REPLICAS: u64 = 54471;
pub(super) const EXTERNAL_ROLES: u64 = 54472;
pub(super) const QUERY_AND_LINE_NUMBERS: u64 = 54475;
pub(super) const JWT: u64 = 54476;
pub(super) const PACKED_LOGS: u64 = 54481;
pub(super) const CLIENT_AGENT: u64 = 54485;
pub(super) const STRINGS_WITH_SIZES: u64 = 54492;

/// Revisions between which a query's form changes, newest first: tried where the greeting was not seen.
pub(super) const FORMS: &[u64] = &[
    CLIENT_AGENT,
    JWT,
    QUERY_AND_LINE_NUMBERS,
    EXTERNAL_ROLES,
    PARAMETERS,
    PARALLEL_REPLICAS,
    QUERY_START_TIME,
    DISTRIBUTED_DEPTH,
    OPENTELEMETRY,
    INTERSERVER_SECRET,
    SETTINGS_AS_STRINGS,
];
