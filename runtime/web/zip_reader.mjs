// A zip that can be read in one way only, as runtime/BUNDLE.md asks and runtime/zip_reader.py does
// it: members without a gap, the directory, the end record, and every local header says what the
// directory says, and the checksum is that of the data. Nothing is inflated beyond the size that the
// directory announces. Knows nothing of bundles or arrays.

import { BundleFormatError, BundleIntegrityError } from "./errors.mjs";

const MAX_MEMBERS = 1000;
const MAX_FILE_BYTES = 2 ** 32 - 2; // beyond it a zip needs zip64, a second place for every size
const MAX_NAME_BYTES = 200;
const STORED = 0;
const DEFLATED = 8;
const ENCRYPTED = 0x1 | 0x40 | 0x2000;
const DESCRIPTOR = 0x8; // sizes behind the data
const KNOWN_FLAGS = 0x2 | 0x4 | 0x800; // two levels of deflate, and that names are UTF-8
const FOLDER = 0x10; // of DOS
const [FILE_TYPE, LINK, REGULAR] = [0o170000, 0o120000, 0o100000]; // of a mode of unix
const FREE_BYTES = 2 ** 20; // up to here any ratio will do
const MAX_RATIO = 100; // deflate reaches 1032; text and weights stay below 20
const [LOCAL_MARK, ENTRY_MARK, END_MARK] = [0x04034b50, 0x02014b50, 0x06054b50]; // little-endian
const [LOCAL_BYTES, ENTRY_BYTES, END_BYTES, ZIP64_BYTES] = [30, 46, 22, 20];
const IN_ZIP64 = 0xffffffff;
const VERSIONS_NEEDED = [10, 20]; // 1.0 and 2.0, as writers of stored and deflated members say
const ZIP64_NEEDED = 45; // 4.5, next to a zip64 field
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:\/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$/;
const RESERVED = /(?:^|\/)(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|\/|$)|\.(?:\/|$)/i;

/**
 * One row of the directory that passed the checks.
 *
 * @typedef {object} Member
 * @property {string} name
 * @property {number} method 0 (stored) or 8 (deflated)
 * @property {number} packedBytes
 * @property {number} sizeBytes of what comes out
 * @property {number} headerAt of the local header, from the start of the file
 * @property {number[]} fields version needed, flags, method, time, date: as the local header has
 *     them
 * @property {number} checksum CRC-32 of what comes out; the local header has it, too
 */

/** The members of a zip in memory, checked as the module says. */
export class ZipReader {
  /** @type {Map<string, Member>} */
  members;
  /** @type {Map<string, number>} */
  #dataAt;
  #bytes;
  #view;

  /**
   * @param {Uint8Array<ArrayBuffer>} bytes the whole file
   * @param {string} name for messages
   * @throws {BundleFormatError}
   */
  constructor(bytes, name) {
    this.name = name;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const { rows, directoryAt } = this.#directory();
    this.members = this.#unique(rows);
    this.#dataAt = this.#layout(rows, directoryAt);
  }

  /**
   * The bytes of one member whose announced size is at most `limitBytes`.
   *
   * @param {string} name
   * @param {number} limitBytes
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   * @throws {BundleFormatError | BundleIntegrityError}
   */
  async inflate(name, limitBytes) {
    const member = this.members.get(name);
    const start = this.#dataAt.get(name);
    if (!member || start === undefined) throw this.#refusal(`there is no member ${name}.`);
    if (member.sizeBytes > limitBytes) {
      throw this.#refusal(`${name} has ${member.sizeBytes} bytes; expected at most ${limitBytes}.`);
    }
    const packed = this.#bytes.subarray(start, start + member.packedBytes);
    let bytes = packed;
    if (member.method !== STORED) {
      try {
        bytes = await inflated(packed, member.sizeBytes);
        await refuseWhatFollows(packed, member.sizeBytes);
      } catch (cause) {
        throw new BundleIntegrityError(
          `${this.name}: ${name} cannot be read (${reasonOf(cause)}); the bundle is damaged.`,
          { cause },
        );
      }
    }
    const checksum = crc32(bytes);
    if (checksum !== member.checksum) {
      throw new BundleIntegrityError(
        `${this.name}: ${name} has the checksum ${checksum.toString(16)}; expected ` +
          `${member.checksum.toString(16)}, as its header says. The bundle is damaged or was ` +
          "altered. Copy it again.",
      );
    }
    return bytes;
  }

  /** @returns {{rows: Member[], directoryAt: number}} */
  #directory() {
    const size = this.#bytes.length;
    if (size > MAX_FILE_BYTES) {
      throw this.#refusal(`the file has ${size} bytes; expected at most ${MAX_FILE_BYTES}.`);
    }
    const endAt = size - END_BYTES;
    if (endAt < 0 || this.#uint32(endAt) !== END_MARK) throw this.#refusal(this.#whatItIs());
    const [disk, firstDisk, here, count] = [4, 6, 8, 10].map((at) => this.#uint16(endAt + at));
    const [length, start] = [this.#uint32(endAt + 12), this.#uint32(endAt + 16)];
    if (count > MAX_MEMBERS) {
      throw this.#refusal(`the zip has ${count} members; expected at most ${MAX_MEMBERS}.`);
    }
    const comment = this.#uint16(endAt + 20);
    if (disk || firstDisk || here !== count || comment || start + length !== endAt) {
      throw this.#refusal(
        `the zip's end record does not fit the file (${count} members in a directory of ` +
          `${length} bytes at ${start}, ${size} bytes in all); something was added, cut or ` +
          "altered. Copy it again.",
      );
    }
    return { rows: this.#rows(start, endAt, count), directoryAt: start };
  }

  /**
   * @param {number} at
   * @param {number} end
   * @param {number} count
   */
  #rows(at, end, count) {
    /** @type {Member[]} */
    const rows = [];
    for (let i = 0; i < count; i += 1) {
      const nameEnd = at + ENTRY_BYTES + (end - at < ENTRY_BYTES ? 0 : this.#uint16(at + 28));
      if (nameEnd > end || this.#uint32(at) !== ENTRY_MARK) {
        throw this.#refusal(`the zip's directory is damaged at byte ${at}. Copy it again.`);
      }
      const name = latin1(this.#bytes.subarray(at + ENTRY_BYTES, nameEnd));
      const problem = problemOfName(name) ?? this.#problemOfEntry(at);
      if (problem) {
        throw this.#refusal(`the member ${quoted(name)} ${problem}.`);
      }
      rows.push({
        name,
        method: this.#uint16(at + 10),
        packedBytes: this.#uint32(at + 20),
        sizeBytes: this.#uint32(at + 24),
        headerAt: this.#uint32(at + 42),
        fields: this.#localFields(at + 6),
        checksum: this.#uint32(at + 16),
      });
      at = nameEnd;
    }
    if (at !== end) {
      throw this.#refusal(
        `the zip's directory has ${end - at} bytes more than its ${count} members need. ` +
          "Copy it again.",
      );
    }
    return rows;
  }

  /**
   * Why the row of the directory at `at` may not be; or null.
   *
   * @param {number} at
   */
  #problemOfEntry(at) {
    const [flags, method] = [this.#uint16(at + 8), this.#uint16(at + 10)];
    const [packed, size] = [this.#uint32(at + 20), this.#uint32(at + 24)];
    const [dos, mode] = [this.#uint16(at + 38), this.#uint16(at + 40)];
    const type = mode & FILE_TYPE;
    if (type === LINK) return "is a symbolic link; expected a file";
    if ((type !== 0 && type !== REGULAR) || dos & FOLDER) {
      return "is a folder or a device; expected a file";
    }
    if (flags & ENCRYPTED) return "is encrypted; expected plain members";
    if (flags & DESCRIPTOR) return "has its sizes behind its data; expected them in its header";
    if (flags & ~KNOWN_FLAGS) return `has the unknown flags ${flags & ~KNOWN_FLAGS}`;
    if (method !== STORED && method !== DEFLATED) {
      return `is packed by method ${method}; expected 0 (stored) or 8 (deflated)`;
    }
    if (method === STORED && packed !== size) {
      return `is stored, yet ${packed} bytes are to become ${size}`;
    }
    const isElsewhere = [packed, size, this.#uint32(at + 42)].includes(IN_ZIP64);
    if (isElsewhere || [30, 32, 34].some((field) => this.#uint16(at + field))) {
      return "has zip64 sizes, extra fields, a comment or another disk; expected none";
    }
    if (size > Math.max(FREE_BYTES, MAX_RATIO * packed)) {
      return (
        `would inflate from ${packed} to ${size} bytes; expected at most ${MAX_RATIO} times ` +
        "as many"
      );
    }
    return null;
  }

  /** @param {Member[]} rows */
  #unique(rows) {
    /** @type {Set<string>} */
    const seen = new Set();
    for (const { name } of rows) {
      if (seen.has(name.toLowerCase())) {
        throw this.#refusal(`the zip has several members named ${quoted(name.toLowerCase())}.`);
      }
      seen.add(name.toLowerCase());
    }
    return new Map(rows.map((row) => [row.name, row]));
  }

  /**
   * Where each member's data begins; refuses gaps, overlaps and headers that disagree.
   *
   * @param {Member[]} rows
   * @param {number} directoryAt
   */
  #layout(rows, directoryAt) {
    /** @type {Map<string, number>} */
    const places = new Map();
    let at = 0;
    for (const member of [...rows].sort((a, b) => a.headerAt - b.headerAt)) {
      if (member.headerAt !== at) {
        throw this.#refusal(
          `${member.name} begins at byte ${member.headerAt}; expected ${at}: members overlap, ` +
            "or something is between them. Copy it again.",
        );
      }
      const dataAt = at + this.#headerBytes(member);
      places.set(member.name, dataAt);
      at = dataAt + member.packedBytes;
    }
    if (at !== directoryAt) {
      throw this.#refusal(
        `the zip's members end at byte ${at} and its directory begins at ${directoryAt}; ` +
          "expected nothing between them. Copy it again.",
      );
    }
    return places;
  }

  /**
   * The length of a local header that says what the directory says.
   *
   * @param {Member} member
   */
  #headerBytes(member) {
    const at = member.headerAt;
    const length = LOCAL_BYTES + member.name.length;
    const isWhole = at + length <= this.#bytes.length && this.#uint32(at) === LOCAL_MARK;
    const extraBytes = isWhole ? this.#uint16(at + 28) : 0;
    let sizes = isWhole ? [this.#uint32(at + 18), this.#uint32(at + 22)] : [];
    const isNumPy = extraBytes === ZIP64_BYTES && sizes.every((size) => size === IN_ZIP64);
    const versions = isNumPy ? [...VERSIONS_NEEDED, ZIP64_NEEDED] : VERSIONS_NEEDED;
    if (isNumPy && at + length + ZIP64_BYTES <= this.#bytes.length) {
      sizes = this.#zip64Sizes(at + length);
    } else if (extraBytes) {
      throw this.#refusal(`${member.name} has extra fields in its header; expected none.`);
    }
    const says = isWhole && [
      latin1(this.#bytes.subarray(at + LOCAL_BYTES, at + length)),
      this.#uint16(at + 26),
      ...this.#localFields(at + 4),
      this.#uint32(at + 14),
      ...sizes,
    ];
    const expected = [
      member.name,
      member.name.length,
      ...member.fields,
      member.checksum,
      member.packedBytes,
      member.sizeBytes,
    ];
    if (!says || says.length !== expected.length || says.some((x, i) => x !== expected[i])) {
      throw this.#refusal(
        `${member.name} has another name, size, method or flag in its own header than in the ` +
          "zip's directory; the bundle is damaged or was altered. Copy it again.",
      );
    }
    if (!versions.includes(member.fields[0] ?? 0)) {
      throw this.#refusal(
        `${member.name} needs version ${member.fields[0]} of the zip format; expected 10 or 20.`,
      );
    }
    return length + extraBytes;
  }

  /**
   * Packed and unpacked size as NumPy writes them into the headers of an .npz; [] for another
   * field.
   *
   * @param {number} at
   */
  #zip64Sizes(at) {
    if (this.#uint16(at) !== 1 || this.#uint16(at + 2) !== 16) return [];
    return [
      Number(this.#view.getBigUint64(at + 12, true)),
      Number(this.#view.getBigUint64(at + 4, true)),
    ];
  }

  /**
   * Version needed, flags, method, time and date, side by side in both kinds of header.
   *
   * @param {number} at
   */
  #localFields(at) {
    return [0, 2, 4, 6, 8].map((field) => this.#uint16(at + field));
  }

  /** What a file without an end record at its end is. */
  #whatItIs() {
    const start = latin1(this.#bytes.subarray(0, 32));
    if (!start) return "the file is empty; expected a bundle. Copy it again.";
    if (start.startsWith("version https://git-lfs")) {
      return "this is the pointer of a Git LFS file, not the bundle. Run git lfs pull.";
    }
    const tail = latin1(this.#bytes.subarray(-(END_BYTES + 0xffff)));
    const mark = tail.lastIndexOf("PK\x05\x06");
    const extra = tail.length - mark - END_BYTES;
    if (mark >= 0 && extra > 0) {
      return `the zip has a comment or ${extra} bytes behind its end; expected none.`;
    }
    if (start.startsWith("PK\x03\x04")) {
      return "the zip is truncated or damaged: its directory cannot be read. Copy it again.";
    }
    return `this is not a zip file (it begins with ${quoted(start.slice(0, 8))}); expected a bundle.`;
  }

  /** @param {number} at */
  #uint16(at) {
    return this.#view.getUint16(at, true);
  }

  /** @param {number} at */
  #uint32(at) {
    return this.#view.getUint32(at, true);
  }

  /** @param {string} reason */
  #refusal(reason) {
    return new BundleFormatError(`${this.name}: ${reason}`);
  }
}

/** @param {string} name */
function problemOfName(name) {
  if (name.split("/").some((part) => ["", ".", ".."].includes(part))) {
    return "has an absolute, parent or folder path; expected a relative file name";
  }
  if (!NAME.test(name) || RESERVED.test(name) || name.length > MAX_NAME_BYTES) {
    return (
      "has a name that means different files on different systems; expected at most " +
      `${MAX_NAME_BYTES} letters, digits and _ . + - of ASCII`
    );
  }
  return null;
}

/**
 * The inflated bytes, exactly `sizeBytes` of them; stops as soon as there are more.
 *
 * @param {Uint8Array<ArrayBuffer>} packed
 * @param {number} sizeBytes
 */
async function inflated(packed, sizeBytes) {
  const result = new Uint8Array(sizeBytes);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const reader = stream.getReader();
  let at = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (at + part.value.length > sizeBytes) {
        throw new RangeError(`it inflates beyond its ${sizeBytes} bytes`);
      }
      result.set(part.value, at);
      at += part.value.length;
    }
  } catch (cause) {
    await reader.cancel().catch(() => {}); // a stream that failed cannot be cancelled, either
    if (cause instanceof RangeError) throw cause;
    throw new Error(`its deflated data does not end with ${sizeBytes} bytes: ${reasonOf(cause)}`);
  }
  if (at !== sizeBytes) {
    throw new Error(`its deflated data does not end with ${sizeBytes} bytes`);
  }
  return result;
}

/**
 * Throws if the deflated data ends before `packed` does. Browsers refuse that by themselves, Node
 * 20 does not; the last byte of deflated data is always needed, one that follows it is not.
 *
 * @param {Uint8Array<ArrayBuffer>} packed
 * @param {number} sizeBytes
 */
async function refuseWhatFollows(packed, sizeBytes) {
  const isWhole = await inflated(packed.subarray(0, -1), sizeBytes).then(
    () => true,
    () => false,
  );
  if (isWhole) throw new Error(`its deflated data does not end with ${sizeBytes} bytes`);
}

/** @param {Uint8Array} bytes @returns {number} CRC-32, as zip and zlib have it */
function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = (CRC_TABLE[(value ^ byte) & 0xff] ?? 0) ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/**
 * One character for each byte; names are compared so, and ASCII is what it is.
 *
 * @param {Uint8Array} bytes
 */
function latin1(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return text;
}

/**
 * A text from a file in a form that can be shown: no control character reaches a log.
 *
 * @param {string} text
 */
function quoted(text) {
  return JSON.stringify(text.slice(0, MAX_NAME_BYTES)).replace(
    /[^ -~]/g,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

/** @param {unknown} cause */
function reasonOf(cause) {
  return cause instanceof Error ? cause.message : String(cause);
}
