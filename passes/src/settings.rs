//! Settings of passes. A pass that has one declares its type in its own file and names it in its row.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;

/// What a pass can be told. With the default it leaves graphs alone.
pub trait Setting:
    Any + Clone + Default + PartialEq + Send + Sync + FromStr<Err: Error + Send + Sync>
{
    /// Its name: that of the option on the command line, and of the line in a filetest.
    const NAME: &'static str;
    /// What help calls the value.
    const VALUE: &'static str;
    /// What help says of it.
    const HELP: &'static str;
}

/// Why a text is not the value of a setting.
pub type SettingError = Box<dyn Error + Send + Sync>;

/// The setting of a pass, as its row names it.
pub struct SettingRow {
    /// Its name: that of the option on the command line, and of the line in a filetest.
    pub name: &'static str,
    /// What help calls the value.
    pub value: &'static str,
    /// What help says of it.
    pub help: &'static str,
    of: fn() -> TypeId,
    /// Reads a value.
    pub read: fn(&str) -> Result<SettingValue, SettingError>,
}

impl SettingRow {
    /// The row of a type.
    pub(crate) const fn of<S: Setting>() -> Self {
        SettingRow {
            name: S::NAME,
            value: S::VALUE,
            help: S::HELP,
            of: TypeId::of::<S>,
            read: |text| Ok(SettingValue::new(text.parse::<S>()?)),
        }
    }
}

/// A value of any setting.
#[derive(Clone, Debug)]
pub struct SettingValue {
    of: TypeId,
    value: Arc<dyn Any + Send + Sync>,
    is_default: bool,
}

impl SettingValue {
    fn new<S: Setting>(value: S) -> Self {
        SettingValue {
            of: TypeId::of::<S>(),
            is_default: value == S::default(),
            value: Arc::new(value),
        }
    }
}

/// Values of settings, at most one of each.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<TypeId, SettingValue>);

impl Settings {
    /// The value that was given.
    pub fn given<S: Setting>(&self) -> Option<&S> {
        self.0.get(&TypeId::of::<S>())?.value.downcast_ref()
    }

    /// The value that was given, or else the default.
    pub fn get<S: Setting>(&self) -> S {
        self.given().cloned().unwrap_or_default()
    }

    /// Whether a value of a row was given.
    pub fn has(&self, row: &SettingRow) -> bool {
        self.0.contains_key(&(row.of)())
    }

    /// Whether passes with these settings do what they do without.
    pub fn are_default(&self) -> bool {
        self.0.values().all(|value| value.is_default)
    }

    /// These settings with a value in place of the one that there may be.
    #[must_use]
    pub fn with<S: Setting>(mut self, value: S) -> Self {
        self.insert(SettingValue::new(value));
        self
    }

    /// Takes a value in place of the one that there may be.
    pub fn insert(&mut self, value: SettingValue) {
        self.0.insert(value.of, value);
    }
}
