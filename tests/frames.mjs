// Plays frames on compiled patterns. It lies beside index.js and needs no permission.
//
// stdin   {pattern, count, parameters, frames: [{dt, spectrum, beat}, ...]}
// stdout  the strip after each frame, [[r, g, b] per LED]; without a pattern, {name: title}
import { Leds, patterns } from "./index.js";

const scene = await new Response(Deno.stdin.readable).json();

function* play({ pattern, count, parameters, frames }) {
  const light = new patterns[pattern](count, parameters);
  const leds = new Leds(count);
  let time = 0;
  for (const { dt = 0.02, spectrum = [], beat = 0 } of frames) {
    time += dt;
    light.render({ time, dt, spectrum: Float32Array.from(spectrum), beat }, leds);
    yield Array.from({ length: count }, (_, i) => [...leds.rgb.subarray(3 * i, 3 * i + 3)]);
  }
}

const titles = () =>
  Object.fromEntries(Object.entries(patterns).map(([name, { title }]) => [name, title]));

console.log(JSON.stringify(scene.pattern ? [...play(scene)] : titles()));
