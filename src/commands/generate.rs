use anyhow::Result; pub fn run(_: &crate::cli::Generate) -> Result<()> { todo!() }
