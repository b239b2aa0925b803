//! What must hold for any command a client may send: readers never panic, and parameter types put into an execute are found
//! there again.

use holdfast::wire::command::{Command, query_text};
use holdfast::wire::execute;

/// First byte: CLIENT_QUERY_ATTRIBUTES and the number of parameters; the rest is the payload.
pub fn check(data: &[u8]) {
    let [how, payload @ ..] = data else { return };
    let attributes = how & 1 != 0;
    let parameters = u16::from(how >> 1);
    let Some(first) = payload.first() else { return };
    let _ = Command::from(*first).answer();
    if let Ok(text) = query_text(payload, attributes) {
        assert!(payload.ends_with(text));
    }
    let _ = (execute::statement_id(payload), execute::flags(payload));
    let Ok(Some(binding)) = execute::binding(payload, parameters, attributes) else { return };
    match &binding.types {
        Some(types) => {
            assert_eq!(types.start, binding.flag_at + 1);
            assert!(types.end <= payload.len());
            if !attributes {
                let _ = execute::check_values(payload, &binding, parameters);
            }
        }
        None if !attributes => {
            let types = vec![0xFD; 2 * usize::from(parameters)];
            let with = execute::with_types(payload, binding.flag_at, &types);
            assert_eq!(with.len(), payload.len() + types.len());
            let Ok(Some(found)) = execute::binding(&with, parameters, false) else {
                panic!("types are not found again")
            };
            assert_eq!(found.types.map(|range| with[range].to_vec()), Some(types));
        }
        None => {}
    }
}
