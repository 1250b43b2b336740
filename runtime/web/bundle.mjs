// A bundle that is open for reading: a zip in memory whose every member was hashed before anything
// but the manifest was parsed. Hashes detect damage; forgery only a signature detects, and this
// runtime does not look at signatures: take bundles from a place that you trust. As
// runtime/bundle.py; independent of sessions and images.

import { BundleFormatError, BundleIntegrityError } from "./errors.mjs";
import {
  MANIFEST_HASH_NAME,
  MANIFEST_NAME,
  MANIFEST_SIGNATURE_NAME,
  Manifest,
} from "./manifest.mjs";
import { ZipReader } from "./zip_reader.mjs";

const UNLISTED = [MANIFEST_NAME, MANIFEST_HASH_NAME, MANIFEST_SIGNATURE_NAME];
const MAX_MANIFEST_BYTES = 2 ** 20; // a real one has some kilobytes; read before any hash is known
const MAX_HASH_BYTES = 256; // 64 digits, and what sha256sum adds
const SIGNATURE_BYTES = 64; // of Ed25519
const MAX_MEMBER_BYTES = 2 ** 31; // protobuf, and so ONNX, ends there
const MAX_BUNDLE_BYTES = 2 ** 32; // of all members together
const HASH_FILE = /^([0-9a-f]{64})(?:[ \t]+\*?[\w./-]*)?[\r\n]*$/;

/** @typedef {string | URL | Blob | ArrayBuffer | Uint8Array} Source where a bundle is */

export class Bundle {
  #zip;

  /**
   * @param {ZipReader} zip
   * @param {string} id
   * @param {Manifest} manifest
   */
  constructor(zip, id, manifest) {
    this.#zip = zip;
    /** sha256 of the manifest */
    this.id = id;
    this.manifest = manifest;
  }

  /**
   * Open an address, a Blob or File, or the bytes of a bundle, and hash every member.
   *
   * @param {Source} source
   * @returns {Promise<Bundle>}
   * @throws {BundleFormatError | BundleIntegrityError}
   */
  static async open(source) {
    const name = typeof source === "string" || source instanceof URL ? `${source}` : "the bundle";
    const zip = new ZipReader(await bytesOf(source), name);
    const text = await small(zip, MANIFEST_NAME, MAX_MANIFEST_BYTES);
    const id = await sha256(text);
    const recorded = await small(zip, MANIFEST_HASH_NAME, MAX_HASH_BYTES);
    if (HASH_FILE.exec(new TextDecoder("latin1").decode(recorded))?.[1] !== id) {
      throw new BundleIntegrityError(
        `${name}: ${MANIFEST_NAME} has the sha256 ${id}, ${MANIFEST_HASH_NAME} says otherwise; ` +
          "the bundle is damaged or was altered. Copy it again.",
      );
    }
    const signature = zip.members.get(MANIFEST_SIGNATURE_NAME);
    if (signature && signature.sizeBytes !== SIGNATURE_BYTES) {
      throw new BundleFormatError(
        `${name}: ${MANIFEST_SIGNATURE_NAME} has ${signature.sizeBytes} bytes; expected ` +
          `${SIGNATURE_BYTES}. Sign the bundle again.`,
      );
    }
    const bundle = new Bundle(zip, id, Manifest.fromJson(text));
    bundle.#checkMembers();
    await bundle.verify();
    return bundle;
  }

  /**
   * The bytes of one listed member, whose size and hash are those of the manifest.
   *
   * @param {string} name
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   * @throws {BundleFormatError | BundleIntegrityError}
   */
  async read(name) {
    const entry = this.manifest.files.get(name);
    if (!entry) throw new BundleFormatError(`${this.#zip.name}: there is no member ${name}.`);
    const bytes = await this.#zip.inflate(name, entry.sizeBytes);
    const digest = await sha256(bytes);
    if (digest !== entry.sha256) {
      throw new BundleIntegrityError(
        `${this.#zip.name}: ${name} has the sha256 ${digest}; expected ${entry.sha256}. The ` +
          "bundle is damaged or was altered. Copy it again.",
      );
    }
    return bytes;
  }

  /**
   * Hash every listed member.
   *
   * @throws {BundleIntegrityError}
   */
  async verify() {
    for (const name of this.manifest.files.keys()) await this.read(name);
  }

  #checkMembers() {
    const [{ members, name: zipName }, { files }] = [this.#zip, this.manifest];
    const extra = [...members.keys()].filter(
      (name) => !files.has(name) && !UNLISTED.includes(name),
    );
    if (extra.length)
      throw new BundleFormatError(`${zipName}: the manifest does not list ${extra}.`);
    const missing = [...files.keys()].filter(
      (name) => !members.has(name) || UNLISTED.includes(name),
    );
    if (missing.length) {
      throw new BundleFormatError(`${zipName}: the members ${missing} are missing.`);
    }
    let total = 0;
    for (const [name, { sizeBytes }] of files) {
      const present = members.get(name)?.sizeBytes;
      if (present !== sizeBytes || sizeBytes > MAX_MEMBER_BYTES) {
        throw new BundleIntegrityError(
          `${zipName}: ${name} has ${present} bytes; expected the ${sizeBytes} of the manifest, at ` +
            `most ${MAX_MEMBER_BYTES}. Copy the bundle again.`,
        );
      }
      total += sizeBytes;
    }
    if (total > MAX_BUNDLE_BYTES) {
      throw new BundleFormatError(
        `${zipName}: the members have ${total} bytes in all; expected at most ${MAX_BUNDLE_BYTES}.`,
      );
    }
  }
}

/**
 * One of the members that no hash protects yet.
 *
 * @param {ZipReader} zip
 * @param {string} name
 * @param {number} limitBytes
 */
async function small(zip, name, limitBytes) {
  if (!zip.members.has(name)) {
    throw new BundleFormatError(`${zip.name}: ${name} is missing; expected a bundle.`);
  }
  return zip.inflate(name, limitBytes);
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @returns {Promise<string>} lower-case hex
 */
async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {Source} source
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
async function bytesOf(source) {
  if (source instanceof Uint8Array) return new Uint8Array(source); // a copy that only this bundle can write to
  if (source instanceof ArrayBuffer) return new Uint8Array(source.slice(0));
  if (source instanceof Blob) return new Uint8Array(await source.arrayBuffer());
  if (typeof source !== "string" && !(source instanceof URL)) {
    throw new BundleFormatError(
      `a bundle cannot be opened from a ${typeof source}; expected an address, a Blob, an ` +
        "ArrayBuffer or a Uint8Array.",
    );
  }
  let answer;
  try {
    answer = await fetch(source);
    if (answer.ok) return new Uint8Array(await answer.arrayBuffer());
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BundleFormatError(`${source}: cannot be fetched: ${reason}.`, { cause });
  }
  throw new BundleFormatError(
    `${source}: the server answered ${answer.status} ${answer.statusText}; expected a bundle.`,
  );
}
