//! What a finished object must not contain.

use object::{File, Object, ObjectSymbol};
use rwkvc_backend_api::LowerError;

use crate::target_error;

/// # Errors
/// If code calls something that is not in the object; nothing could give it to the loader.
pub(crate) fn check(bytes: &[u8]) -> Result<(), LowerError> {
    let file =
        File::parse(bytes).map_err(|e| target_error(format!("LLVM wrote an unreadable object: {e}")))?;
    let mut undefined = file.symbols().filter(|s| s.is_undefined());
    match undefined.next() {
        None => Ok(()),
        Some(symbol) => {
            let name = String::from_utf8_lossy(symbol.name_bytes().unwrap_or_default()).into_owned();
            Err(target_error(format!(
                "the code calls `{name}`, but must not call anything"
            )))
        }
    }
}
