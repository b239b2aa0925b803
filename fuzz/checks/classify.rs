//! What must hold for every text given to the classifier. The first byte chooses the dialect.

use holdfast::classify::{Class, Dialect, Flavor, SqlMode, classify};

/// Panics if a property does not hold.
pub fn check(data: &[u8]) {
    let Some((&choice, sql)) = data.split_first() else { return };
    let bit = |n: u8| choice & (1 << n) != 0;
    let dialect = Dialect {
        flavor: if bit(0) { Flavor::MariaDb { version: 101119 } } else { Flavor::MySql { version: 90704 } },
        mode: SqlMode { ansi_quotes: bit(1), no_backslash_escapes: bit(2), ignore_space: bit(3) },
        multibyte_escape_unsafe: bit(4),
    };
    let found = classify(sql, dialect);

    // Blanks in front change nothing.
    let mut padded = b" \n/**/\t".to_vec();
    padded.extend_from_slice(sql);
    assert_eq!(found, classify(&padded, dialect));

    // What follows a read's end is seen: a text that is a read is complete, so code can be put behind it.
    if found.class == Class::Read {
        for behind in ["\n FOR UPDATE", "\n;DELETE FROM t", "\n INTO @a", "\n, f(1)"] {
            let mut longer = sql.to_vec();
            longer.extend_from_slice(behind.as_bytes());
            assert_ne!(classify(&longer, dialect).class, Class::Read, "{behind}");
        }
    }
}
