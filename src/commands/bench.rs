use anyhow::Result; pub fn run(_: &crate::cli::Bench) -> Result<()> { todo!() }
