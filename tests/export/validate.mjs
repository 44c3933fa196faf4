// Prints the issues that Khronos' validator finds in a GLB file, as JSON: node validate.mjs NODE_MODULES FILE
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [modules, file] = process.argv.slice(2);
const validator = createRequire(`${modules}/`)("gltf-validator");
const report = await validator.validateBytes(new Uint8Array(readFileSync(file)), { maxIssues: 100 });
console.log(JSON.stringify(report));
