// The Zarr codec `imagecodecs_jpeg` for zarrita (0.7.4 or later): opens pyramids whose level 0 holds a slide's tiles.
//
//     import * as zarr from "zarrita";
//     import { imagecodecsJpeg } from "./imagecodecs_jpeg.js";
//     zarr.registry.set("imagecodecs_jpeg", () => imagecodecsJpeg());
//     const image = zarr.root(new zarr.FetchStore("https://example.org/pyramids/KEY"));
//     const level = await zarr.open(image.resolve("0"), { kind: "array" });
//
// A browser decodes the streams itself. Elsewhere give a decoder that returns { width, height, data } with RGBA
// data, such as jpeg-js:
//
//     import jpeg from "jpeg-js";
//     zarr.registry.set("imagecodecs_jpeg", () => imagecodecsJpeg((bytes) => jpeg.decode(bytes, { useTArray: true })));
//
// Lossless JPEG, as the few tiles are stored that could not be copied (`tiles_encoded`), is beyond both.

/** Decode a JPEG stream by the browser; colours as they are stored. */
export async function decodeInBrowser(bytes) {
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }), { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { alpha: false });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}

/** The codec as a class that zarrita's registry takes; `decode` turns a stream into RGBA pixels. */
export function imagecodecsJpeg(decode = decodeInBrowser) {
  return class ImagecodecsJpeg {
    kind = "array_to_bytes";

    constructor(shape) {
      this.shape = shape;
      this.stride = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    }

    // The shape is that of a chunk before `transpose`, whose codec lays the strides over the pixels.
    static fromConfig(_, { shape }) {
      return new ImagecodecsJpeg(shape);
    }

    async decode(bytes) {
      const { width, height, data } = await decode(bytes);
      const rgb = new Uint8Array(3 * width * height);
      for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
        rgb[to] = data[from];
        rgb[to + 1] = data[from + 1];
        rgb[to + 2] = data[from + 2];
      }
      return { data: rgb, shape: this.shape, stride: this.stride };
    }

    encode() {
      throw new Error("imagecodecs_jpeg: reading only");
    }
  };
}
