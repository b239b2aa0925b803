//! Capability flags: what each side of a connection can do, agreed on in the handshake.
//!
//! MySQL has 32 of them; MariaDB adds 32 more, which it sends in bytes that MySQL leaves zero, and only if the flag
//! `CLIENT_MYSQL` (MySQL calls it `LONG_PASSWORD`) is not set. Both live in one `u64` here, as in MariaDB's own source:
//! the upper half are MariaDB's. Source: "Capability Flags" of MySQL's protocol documentation, MariaDB's `mysql_com.h`.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not, Sub};

/// A set of capability flags; bits 0..=31 are MySQL's, 32..=63 MariaDB's extended ones.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// None.
    pub const NONE: Self = Self(0);
    /// Set by every MySQL; MariaDB calls it `CLIENT_MYSQL` and leaves it clear where it speaks MariaDB's dialect.
    pub const LONG_PASSWORD: Self = Self(1);
    /// Affected rows count the rows found, not the rows changed.
    pub const FOUND_ROWS: Self = Self(1 << 1);
    /// Column flags take two bytes.
    pub const LONG_FLAG: Self = Self(1 << 2);
    /// The login names a schema.
    pub const CONNECT_WITH_DB: Self = Self(1 << 3);
    /// `db.table.column` is refused.
    pub const NO_SCHEMA: Self = Self(1 << 4);
    /// zlib compression.
    pub const COMPRESS: Self = Self(1 << 5);
    /// Without meaning since 3.22.
    pub const ODBC: Self = Self(1 << 6);
    /// LOAD DATA LOCAL INFILE.
    pub const LOCAL_FILES: Self = Self(1 << 7);
    /// Spaces before `(` are ignored.
    pub const IGNORE_SPACE: Self = Self(1 << 8);
    /// The protocol of 4.1, the only one served.
    pub const PROTOCOL_41: Self = Self(1 << 9);
    /// interactive_timeout instead of wait_timeout.
    pub const INTERACTIVE: Self = Self(1 << 10);
    /// TLS.
    pub const SSL: Self = Self(1 << 11);
    /// Status flags in OK packets.
    pub const TRANSACTIONS: Self = Self(1 << 13);
    /// Challenge-response passwords of 4.1.
    pub const SECURE_CONNECTION: Self = Self(1 << 15);
    /// Several statements in one COM_QUERY.
    pub const MULTI_STATEMENTS: Self = Self(1 << 16);
    /// Several results to one COM_QUERY.
    pub const MULTI_RESULTS: Self = Self(1 << 17);
    /// Several results to one COM_STMT_EXECUTE.
    pub const PS_MULTI_RESULTS: Self = Self(1 << 18);
    /// Authentication plugins have names.
    pub const PLUGIN_AUTH: Self = Self(1 << 19);
    /// Connection attributes.
    pub const CONNECT_ATTRS: Self = Self(1 << 20);
    /// The first authentication answer may be longer than 255 bytes.
    pub const PLUGIN_AUTH_LENENC_CLIENT_DATA: Self = Self(1 << 21);
    /// Takes 1820 after a login with an expired password instead of 1862 at the login.
    pub const CAN_HANDLE_EXPIRED_PASSWORDS: Self = Self(1 << 22);
    /// Session state in OK packets.
    pub const SESSION_TRACK: Self = Self(1 << 23);
    /// OK packets instead of EOF packets.
    pub const DEPRECATE_EOF: Self = Self(1 << 24);
    /// Results without column definitions.
    pub const OPTIONAL_RESULTSET_METADATA: Self = Self(1 << 25);
    /// zstd compression; the login carries a level.
    pub const ZSTD_COMPRESSION_ALGORITHM: Self = Self(1 << 26);
    /// Query attributes in COM_QUERY and COM_STMT_EXECUTE.
    pub const QUERY_ATTRIBUTES: Self = Self(1 << 27);
    /// Logins with several factors.
    pub const MULTI_FACTOR_AUTHENTICATION: Self = Self(1 << 28);
    /// MariaDB: progress reports in ERR packets.
    pub const MARIADB_PROGRESS: Self = Self(1 << 32);
    /// MariaDB: COM_STMT_BULK_EXECUTE.
    pub const MARIADB_STMT_BULK_OPERATIONS: Self = Self(1 << 34);
    /// MariaDB: extended type information in column definitions.
    pub const MARIADB_EXTENDED_METADATA: Self = Self(1 << 35);
    /// MariaDB: column definitions left out of repeated executions.
    pub const MARIADB_CACHE_METADATA: Self = Self(1 << 36);

    /// What the proxy can serve; nothing else is offered to a client or asked of a server. Absent, with the reason:
    /// MULTI_FACTOR_AUTHENTICATION (only the first factor could be proven), MARIADB_PROGRESS (packets that are neither
    /// result nor error), MARIADB_CACHE_METADATA (changes where a response ends from one execution to the next).
    pub const SERVED: Self = Self(
        Self::LONG_PASSWORD.0
            | Self::FOUND_ROWS.0
            | Self::LONG_FLAG.0
            | Self::CONNECT_WITH_DB.0
            | Self::NO_SCHEMA.0
            | Self::COMPRESS.0
            | Self::ODBC.0
            | Self::LOCAL_FILES.0
            | Self::IGNORE_SPACE.0
            | Self::PROTOCOL_41.0
            | Self::INTERACTIVE.0
            | Self::SSL.0
            | Self::TRANSACTIONS.0
            | Self::SECURE_CONNECTION.0
            | Self::MULTI_STATEMENTS.0
            | Self::MULTI_RESULTS.0
            | Self::PS_MULTI_RESULTS.0
            | Self::PLUGIN_AUTH.0
            | Self::CONNECT_ATTRS.0
            | Self::PLUGIN_AUTH_LENENC_CLIENT_DATA.0
            | Self::CAN_HANDLE_EXPIRED_PASSWORDS.0
            | Self::SESSION_TRACK.0
            | Self::DEPRECATE_EOF.0
            | Self::OPTIONAL_RESULTSET_METADATA.0
            | Self::ZSTD_COMPRESSION_ALGORITHM.0
            | Self::QUERY_ATTRIBUTES.0
            | Self::MARIADB_STMT_BULK_OPERATIONS.0
            | Self::MARIADB_EXTENDED_METADATA.0,
    );

    /// Asked of every server, whatever the client has: the exchange of a login depends on them.
    pub const LOGIN: Self = Self(
        Self::PROTOCOL_41.0
            | Self::SECURE_CONNECTION.0
            | Self::PLUGIN_AUTH.0
            | Self::PLUGIN_AUTH_LENENC_CLIENT_DATA.0
            | Self::TRANSACTIONS.0
            | Self::SESSION_TRACK.0,
    );

    /// What the proxy's own small queries ask for.
    pub const OWN: Self = Self(
        Self::LOGIN.0
            | Self::LONG_PASSWORD.0
            | Self::LONG_FLAG.0
            | Self::CONNECT_ATTRS.0
            | Self::MULTI_RESULTS.0
            | Self::DEPRECATE_EOF.0,
    );

    /// True when every flag of `other` is set.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// MySQL's 32 flags.
    #[inline]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// MariaDB's 32 extended flags.
    #[inline]
    pub const fn extended(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Both halves.
    pub const fn from_parts(low: u32, extended: u32) -> Self {
        Self(low as u64 | (extended as u64) << 32)
    }
}

impl BitOr for Capabilities {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Capabilities {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Capabilities {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for Capabilities {
    type Output = Self;
    /// The flags of `self` that are not in `other`.
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl Not for Capabilities {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capabilities({:#010x}+{:#x})", self.low(), self.extended())
    }
}
