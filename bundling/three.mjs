// What an exported page uses of three.js.
export {
  AnimationMixer,
  DirectionalLight,
  HemisphereLight,
  PerspectiveCamera,
  REVISION,
  Scene,
  WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
