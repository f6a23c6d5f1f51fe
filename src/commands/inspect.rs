use anyhow::Result; pub fn run(_: &crate::cli::Inspect) -> Result<()> { todo!() }
