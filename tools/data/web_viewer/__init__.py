"""Bundles the splat viewer of HTML exports from the npm registry: package.json, its lock and the entry point."""
