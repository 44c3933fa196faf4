// Writes the part of three.js that exported pages use, minified, and its licence: node build.mjs FOLDER
import { copyFileSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const folder = process.argv[2];
const three = join(dirname(createRequire(import.meta.url).resolve("three")), "..");
const { version } = JSON.parse(readFileSync(join(three, "package.json")));

await build({
  entryPoints: [join(here, "three.mjs")],
  outfile: join(folder, "three.min.js"),
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "three",
  target: "es2022",
  legalComments: "none",
  banner: { js: `/* three.js ${version}, MIT licence, https://threejs.org */` },
});
copyFileSync(join(three, "LICENSE"), join(folder, "three.LICENSE"));
