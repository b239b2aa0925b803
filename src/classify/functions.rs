//! Which names may stand before a `(` in a read.
//!
//! Why a list: a name that is not on it may be a stored function or a loadable one, and these may write. Every entry
//! was checked on the real servers (MySQL 9.7.4, MariaDB 10.11.19): a listed name can't be the unqualified call of a
//! stored function there. Left out on purpose although built in: what waits for or reports one server's replication
//! (SOURCE_POS_WAIT, WAIT_FOR_EXECUTED_GTID_SET and the like), reads its files or threads (LOAD_FILE, PS_THREAD_ID,
//! CONNECTION_ID), counts on it (UUID_SHORT), MariaDB's sequences (NEXTVAL, LASTVAL, SETVAL), the servers' internal
//! functions, and whatever plugins and components install. The table is built by the compiler.

use super::class::{Dialect, Flags, Flavor};

/// Known to MySQL 8.0 and later.
const MYSQL: u8 = 1;
/// Known to MariaDB 10.11 and later.
const MARIADB: u8 = 2;
const BOTH: u8 = MYSQL | MARIADB;
/// Known to MySQL 9.0 and later.
const MYSQL_9: u8 = 4;
/// Without IGNORE_SPACE it's the built-in only when nothing stands between the name and the parenthesis (manual
/// 11.2.5); with a gap it may be a stored function of that name.
const ADJACENT: u8 = 8;
const LAST_INSERT_ID: u8 = 16;
const DIAGNOSTICS: u8 = 32;
const LOCK: u8 = 64;
/// Known to MySQL before 9.6, a component's function since.
const MYSQL_TO_9_5: u8 = 128;

/// What is known about a name before a parenthesis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Known {
    /// It can't change anything and is not bound to a connection.
    pub(super) pure: bool,
    /// What it touches.
    pub(super) flags: Flags,
}

/// Looks up an unquoted, unqualified name in any case. `adjacent`: the parenthesis follows it directly.
/// None: not known to this server, so it may be a stored function.
pub(super) fn lookup(name: &[u8], adjacent: bool, dialect: Dialect) -> Option<Known> {
    let bits = find(name)?;
    let served = match dialect.flavor {
        Flavor::MySql { version } => {
            bits & MYSQL != 0
                || (bits & MYSQL_9 != 0 && version >= 90000)
                || (bits & MYSQL_TO_9_5 != 0 && version < 90600)
        }
        Flavor::MariaDb { .. } => bits & MARIADB != 0,
    };
    if !served || (bits & ADJACENT != 0 && !adjacent && !dialect.mode.ignore_space) {
        return None;
    }
    Some(match bits & (LAST_INSERT_ID | DIAGNOSTICS | LOCK) {
        LAST_INSERT_ID => Known { pure: false, flags: Flags::LAST_INSERT_ID },
        DIAGNOSTICS => Known { pure: true, flags: Flags::DIAGNOSTICS },
        LOCK => Known { pure: false, flags: Flags::LOCK_FUNCTION },
        _ => Known { pure: true, flags: Flags::NONE },
    })
}

fn find(name: &[u8]) -> Option<u8> {
    let mut at = hash(name);
    loop {
        let (entry, bits) = TABLE[at % TABLE_SIZE];
        if entry.is_empty() {
            return None;
        }
        if entry.eq_ignore_ascii_case(name) {
            return Some(bits);
        }
        at += 1;
    }
}

/// FNV-1a over the upper-cased bytes (of letters; other bytes lose a bit, which only costs a probe).
const fn hash(name: &[u8]) -> usize {
    let mut h: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < name.len() {
        h = (h ^ (name[i] & 0xdf) as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (h ^ (h >> 15)) as usize
}

/// A power of two, at least three times the number of names, so that a probe ends soon.
const TABLE_SIZE: usize = 2048;

static TABLE: [(&[u8], u8); TABLE_SIZE] = {
    let mut table: [(&[u8], u8); TABLE_SIZE] = [(b"", 0); TABLE_SIZE];
    let mut g = 0;
    while g < GROUPS.len() {
        let mut rest = GROUPS[g].names.as_bytes();
        while !rest.is_empty() {
            let (name, behind) = rest.split_at(word_len(rest));
            let mut at = hash(name);
            while !table[at % TABLE_SIZE].0.is_empty() {
                at += 1;
            }
            table[at % TABLE_SIZE] = (name, GROUPS[g].bits);
            rest = if behind.is_empty() { behind } else { behind.split_at(1).1 };
        }
        g += 1;
    }
    table
};

const fn word_len(text: &[u8]) -> usize {
    let mut len = 0;
    while len < text.len() && text[len] != b' ' {
        len += 1;
    }
    len
}

struct Group {
    bits: u8,
    /// In upper case, one space between two names.
    names: &'static str,
}

/// Every name once.
const GROUPS: &[Group] = &[
    // Functions of both families.
    Group {
        bits: BOTH,
        names: "ABS ACOS ADDTIME AES_DECRYPT AES_ENCRYPT ASCII ASIN ATAN ATAN2 AVG BENCHMARK BIN BIT_COUNT BIT_LENGTH \
            CEIL CEILING CHAR CHARACTER_LENGTH CHARSET CHAR_LENGTH COALESCE COERCIBILITY COLLATION COMPRESS CONCAT \
            CONCAT_WS CONTAINS CONV CONVERT CONVERT_TZ COT CRC32 CURRENT_DATE CURRENT_ROLE CURRENT_TIME \
            CURRENT_TIMESTAMP CURRENT_USER DATABASE DATE DATEDIFF DATE_FORMAT DAY DAYNAME DAYOFMONTH DAYOFWEEK \
            DAYOFYEAR DEFAULT DEGREES ELT EXP EXPORT_SET EXTRACTVALUE FIELD FIND_IN_SET FLOOR FORMAT FROM_BASE64 \
            FROM_DAYS FROM_UNIXTIME GEOMETRYCOLLECTION GET_FORMAT GREATEST HEX HOUR IF IFNULL INET6_ATON \
            INET6_NTOA INET_ATON INET_NTOA INSERT INSTR INTERVAL ISNULL IS_IPV4 IS_IPV4_COMPAT IS_IPV4_MAPPED \
            IS_IPV6 JSON_ARRAY JSON_ARRAY_APPEND JSON_ARRAY_INSERT JSON_CONTAINS JSON_CONTAINS_PATH JSON_DEPTH \
            JSON_EXTRACT JSON_INSERT JSON_KEYS JSON_LENGTH JSON_MERGE JSON_MERGE_PATCH JSON_MERGE_PRESERVE \
            JSON_OBJECT JSON_OVERLAPS JSON_PRETTY JSON_QUOTE JSON_REMOVE JSON_REPLACE JSON_SEARCH JSON_SET \
            JSON_TYPE JSON_UNQUOTE JSON_VALID JSON_VALUE LAST_DAY LAST_VALUE LCASE LEAST LEFT LENGTH LINESTRING LN \
            LOCALTIME LOCALTIMESTAMP LOCATE LOG LOG10 LOG2 LOWER LPAD LTRIM MAKEDATE MAKETIME MAKE_SET MATCH \
            MBRCONTAINS MBRDISJOINT MBREQUALS MBRINTERSECTS MBROVERLAPS MBRTOUCHES MBRWITHIN MICROSECOND MINUTE \
            MOD MONTH MONTHNAME NAME_CONST NULLIF OCT OCTET_LENGTH ORD PASSWORD PERIOD_ADD PERIOD_DIFF PI POINT \
            POLYGON POW POWER QUARTER RADIANS RAND RANDOM_BYTES RANK REGEXP_INSTR REGEXP_REPLACE REGEXP_SUBSTR \
            REPEAT REPLACE REVERSE RIGHT ROUND ROW_NUMBER RPAD RTRIM SCHEMA SECOND SEC_TO_TIME SHA2 SIGN SIN SLEEP \
            SOUNDEX SPACE SQRT SRID STRCMP STR_TO_DATE ST_AREA ST_ASBINARY ST_ASGEOJSON ST_ASTEXT ST_ASWKB \
            ST_ASWKT ST_BUFFER ST_CENTROID ST_CONTAINS ST_CONVEXHULL ST_CROSSES ST_DIFFERENCE ST_DIMENSION \
            ST_DISJOINT ST_DISTANCE ST_DISTANCE_SPHERE ST_ENDPOINT ST_ENVELOPE ST_EQUALS ST_EXTERIORRING \
            ST_GEOMCOLLFROMTEXT ST_GEOMCOLLFROMWKB ST_GEOMETRYCOLLECTIONFROMTEXT ST_GEOMETRYCOLLECTIONFROMWKB \
            ST_GEOMETRYFROMTEXT ST_GEOMETRYFROMWKB ST_GEOMETRYN ST_GEOMETRYTYPE ST_GEOMFROMGEOJSON ST_GEOMFROMTEXT \
            ST_GEOMFROMWKB ST_INTERIORRINGN ST_INTERSECTION ST_INTERSECTS ST_ISCLOSED ST_ISEMPTY ST_ISSIMPLE \
            ST_LENGTH ST_LINEFROMTEXT ST_LINEFROMWKB ST_LINESTRINGFROMTEXT ST_LINESTRINGFROMWKB ST_MLINEFROMTEXT \
            ST_MLINEFROMWKB ST_MPOINTFROMTEXT ST_MPOINTFROMWKB ST_MPOLYFROMTEXT ST_MPOLYFROMWKB \
            ST_MULTILINESTRINGFROMTEXT ST_MULTILINESTRINGFROMWKB ST_MULTIPOINTFROMTEXT ST_MULTIPOINTFROMWKB \
            ST_MULTIPOLYGONFROMTEXT ST_MULTIPOLYGONFROMWKB ST_NUMGEOMETRIES ST_NUMINTERIORRINGS ST_NUMPOINTS \
            ST_OVERLAPS ST_POINTFROMTEXT ST_POINTFROMWKB ST_POINTN ST_POLYFROMTEXT ST_POLYFROMWKB \
            ST_POLYGONFROMTEXT ST_POLYGONFROMWKB ST_SRID ST_STARTPOINT ST_SYMDIFFERENCE ST_TOUCHES ST_UNION \
            ST_WITHIN ST_X ST_Y SUBSTRING_INDEX SUBTIME TAN TIME TIMEDIFF TIMESTAMP TIMESTAMPADD TIMESTAMPDIFF \
            TIME_TO_SEC TO_BASE64 TO_DAYS TO_SECONDS TRUNCATE UCASE UNCOMPRESS UNCOMPRESSED_LENGTH UNHEX \
            UNIX_TIMESTAMP UPDATEXML UPPER USER UTC_DATE UTC_TIME UTC_TIMESTAMP UUID VALUE VALUES VERSION WEEK \
            WEEKDAY WEEKOFYEAR WEIGHT_STRING YEAR YEARWEEK",
    },
    // MySQL's alone.
    Group {
        bits: MYSQL,
        names: "ANY_VALUE BIN_TO_UUID FORMAT_BYTES FORMAT_PICO_TIME GEOMCOLLECTION GROUPING GTID_SUBSET GTID_SUBTRACT \
            ICU_VERSION IS_UUID JSON_SCHEMA_VALID JSON_SCHEMA_VALIDATION_REPORT JSON_STORAGE_FREE \
            JSON_STORAGE_SIZE JSON_TABLE MBRCOVEREDBY MBRCOVERS MULTILINESTRING MULTIPOINT MULTIPOLYGON \
            REGEXP_LIKE STATEMENT_DIGEST STATEMENT_DIGEST_TEXT ST_BUFFER_STRATEGY ST_FRECHETDISTANCE ST_GEOHASH \
            ST_GEOMCOLLFROMTXT ST_HAUSDORFFDISTANCE ST_ISVALID ST_LATFROMGEOHASH ST_LATITUDE \
            ST_LINEINTERPOLATEPOINT ST_LINEINTERPOLATEPOINTS ST_LONGFROMGEOHASH ST_LONGITUDE ST_MAKEENVELOPE \
            ST_NUMINTERIORRING ST_POINTATDISTANCE ST_POINTFROMGEOHASH ST_SIMPLIFY ST_SWAPXY ST_TRANSFORM \
            ST_VALIDATE UUID_TO_BIN",
    },
    // MySQL's since 9.0.
    Group { bits: MYSQL_9, names: "ETAG FROM_VECTOR STRING_TO_VECTOR TO_VECTOR VECTOR_DIM VECTOR_TO_STRING" },
    // MariaDB's, and MySQL's of old.
    Group { bits: MARIADB | MYSQL_TO_9_5, names: "MD5 SHA SHA1" },
    // MariaDB's alone.
    Group {
        bits: MARIADB,
        names: "ADD_MONTHS AREA ASBINARY ASTEXT ASWKB ASWKT CHR COLUMN_ADD COLUMN_CHECK COLUMN_CREATE COLUMN_DELETE \
            COLUMN_EXISTS COLUMN_GET COLUMN_JSON COLUMN_LIST CONCAT_OPERATOR_ORACLE CRC32C CROSSES DECODE \
            DECODE_HISTOGRAM DECODE_ORACLE DES_DECRYPT DES_ENCRYPT DISJOINT ENCODE ENCRYPT EQUALS GEOMFROMTEXT \
            GLENGTH INTERSECTS JSON_COMPACT JSON_DETAILED JSON_EQUALS JSON_EXISTS JSON_LOOSE JSON_NORMALIZE \
            JSON_QUERY LENGTHB LPAD_ORACLE LTRIM_ORACLE MBREQUAL NATURAL_SORT_KEY NUMPOINTS NVL NVL2 \
            OLD_PASSWORD OVERLAPS POINTFROMTEXT REPLACE_ORACLE ROWNUM RPAD_ORACLE RTRIM_ORACLE SFORMAT \
            ST_BOUNDARY ST_ISRING ST_POINTONSURFACE ST_RELATE SUBSTR_ORACLE SYS_GUID TOUCHES TO_CHAR WITHIN X Y",
    },
    // Known by the parser only directly before the parenthesis, in both families.
    Group {
        bits: BOTH | ADJACENT,
        names: "ADDDATE BIT_AND BIT_OR BIT_XOR CAST COUNT CUME_DIST CURDATE CURTIME DATE_ADD DATE_SUB DENSE_RANK \
            EXTRACT FIRST_VALUE GROUP_CONCAT JSON_ARRAYAGG JSON_OBJECTAGG LAG LEAD MAX MID MIN NOW NTH_VALUE NTILE \
            PERCENT_RANK POSITION SESSION_USER STD STDDEV STDDEV_POP STDDEV_SAMP SUBDATE SUBSTR SUBSTRING SUM \
            SYSDATE SYSTEM_USER TRIM VARIANCE VAR_POP VAR_SAMP",
    },
    // The same, MySQL's alone.
    Group { bits: MYSQL | ADJACENT, names: "ST_COLLECT" },
    // The same, MariaDB's alone.
    Group { bits: MARIADB | ADJACENT, names: "MEDIAN PERCENTILE_CONT PERCENTILE_DISC" },
    // Words of the grammar that may stand before a parenthesis.
    Group {
        bits: BOTH,
        names: "ALL AND ANY AS BETWEEN BINARY BIT BOTH BY CASE CHARACTER DATETIME DEC DECIMAL DESC DESCRIBE DISTINCT \
            DISTINCTROW DIV DOUBLE ELSE EXCEPT EXISTS EXPLAIN FIXED FLOAT FROM GROUP HAVING IN INDEX INT INTEGER \
            INTERSECT JOIN JSON KEY LEADING LIKE LIMIT NCHAR NOT NUMERIC NVARCHAR OFFSET ON OR OVER PARTITION REAL \
            REGEXP RLIKE ROW SELECT SOME STRAIGHT_JOIN THEN TRAILING UNION USING VARBINARY VARCHAR VARCHARACTER \
            WHEN WHERE XOR",
    },
    // The same, MySQL's alone.
    Group { bits: MYSQL, names: "AGAINST COLUMNS CUBE ESCAPE LATERAL OF ROLLUP" },
    // Bound to the connection or its past; never a plain read.
    Group { bits: BOTH | LAST_INSERT_ID, names: "LAST_INSERT_ID" },
    Group { bits: BOTH | DIAGNOSTICS, names: "FOUND_ROWS ROW_COUNT" },
    Group { bits: BOTH | LOCK, names: "GET_LOCK IS_FREE_LOCK IS_USED_LOCK RELEASE_ALL_LOCKS RELEASE_LOCK" },
];

/// Every name, for the tests.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().flat_map(|group| group.names.split(' '))
}
