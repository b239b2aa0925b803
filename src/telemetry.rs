//! Logs: `tracing` events to standard error, as text or JSON, filtered by level and module.
//!
//! Standard error, since standard output belongs to what a subcommand prints. The level can change while the process
//! runs; the format can't.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat};

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives are not valid; a checked configuration has none such.
    #[error("log level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Another subscriber is installed in this process.
    #[error("logging is set up already: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
    /// The subscriber is gone.
    #[error("log level: {0}")]
    Gone(#[from] reload::Error),
}

/// The log of the process; changes its level.
#[derive(Debug, Clone)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Telemetry {
    /// Logs less or more from now on; `level` as [`LogConfig::level`].
    ///
    /// # Errors
    /// [`TelemetryError::Level`], [`TelemetryError::Gone`].
    pub fn change_level(&self, level: &str) -> Result<(), TelemetryError> {
        Ok(self.filter.reload(parse(level)?)?)
    }
}

/// Sets up logging for the whole process. To be called once.
///
/// # Errors
/// [`TelemetryError::Level`], [`TelemetryError::Installed`].
pub fn install(config: &LogConfig) -> Result<Telemetry, TelemetryError> {
    // Colours are for a terminal; what reads a pod's log is none.
    let (subscriber, telemetry) = build(config, std::io::stderr, std::io::stderr().is_terminal())?;
    subscriber.try_init()?;
    Ok(telemetry)
}

fn build<W>(config: &LogConfig, writer: W, colours: bool) -> Result<(impl Subscriber, Telemetry), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(&config.level)?);
    let lines = match config.format {
        LogFormat::Text => fmt::layer().with_ansi(colours).with_writer(writer).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    Ok((subscriber, Telemetry { filter: handle }))
}

fn parse(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(level)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::{debug, info};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(config: &LogConfig, work: impl FnOnce(&Telemetry)) -> String {
        let written = Written::default();
        let writer = written.clone();
        let (subscriber, telemetry) = build(config, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || work(&telemetry));
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_in_it() {
        let config = LogConfig { format: LogFormat::Json, level: "info".to_owned() };
        let text = written(&config, |_| info!(cluster = "orders", term = 3, "primary changed"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "primary changed");
        assert_eq!((&line["cluster"], &line["term"], &line["level"]), (&"orders".into(), &3.into(), &"INFO".into()));
    }

    #[test]
    fn the_level_holds_and_can_change() {
        let text = written(&LogConfig::default(), |telemetry| {
            debug!("first");
            telemetry.change_level("warn,holdfast::telemetry=debug").unwrap();
            debug!(number = 2, "second");
            assert!(telemetry.change_level("a=loud").is_err());
            debug!("third");
            telemetry.change_level("warn").unwrap();
            info!("fourth");
        });
        assert!(!text.contains("first") && !text.contains("fourth"), "{text}");
        assert!(text.contains("DEBUG holdfast::telemetry::tests: second number=2\n"), "{text}");
        assert!(text.contains("third"), "{text}");
    }
}
