// What the viewer takes of OpenLayers 10.11.0. openlayers.min.js is made of it, in a folder with the packages:
//   npm install ol@10.11.0 esbuild@0.28.2
//   npx esbuild openlayers.entry.js --bundle --minify --format=iife --global-name=ol --outfile=openlayers.min.js
export {default as Map} from 'ol/Map.js';
export {default as View} from 'ol/View.js';
export {default as Feature} from 'ol/Feature.js';
export {default as Projection} from 'ol/proj/Projection.js';
export {default as TileGrid} from 'ol/tilegrid/TileGrid.js';
export {default as TileLayer} from 'ol/layer/Tile.js';
export {default as VectorLayer} from 'ol/layer/Vector.js';
export {default as TileImage} from 'ol/source/TileImage.js';
export {default as VectorSource} from 'ol/source/Vector.js';
export {default as Draw} from 'ol/interaction/Draw.js';
export {default as Point} from 'ol/geom/Point.js';
export {default as Polygon} from 'ol/geom/Polygon.js';
export {default as MultiLineString} from 'ol/geom/MultiLineString.js';
export {default as Overlay} from 'ol/Overlay.js';
export {default as ScaleLine} from 'ol/control/ScaleLine.js';
export {default as Zoom} from 'ol/control/Zoom.js';
export {Style, Fill, Stroke, Circle} from 'ol/style.js';
