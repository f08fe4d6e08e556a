export { BufferAttribute, Color, DataTexture, FloatType, HalfFloatType, NearestFilter, PerspectiveCamera, RGBAFormat, Scene, Vector3, WebGLRenderer } from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
export { SparkRenderer, SplatGenerator, SplatMesh, dyno } from "@sparkjsdev/spark";
