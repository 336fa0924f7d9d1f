// Files of a drop, folders included.

const IGNORED = /^(\.|Thumbs\.db$|desktop\.ini$)/;

async function filesOf(entry) {
  if (IGNORED.test(entry.name)) return [];
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  // A reader answers with at most a hundred entries at a time.
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return found;
    for (const child of entries) found.push(...await filesOf(child));
  }
}

/** The files of a drop, in natural order of their names. */
export async function droppedFiles(transfer) {
  // The entries have to be taken before anything is awaited: the browser empties the list.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = entries.length ? (await Promise.all(entries.map(filesOf))).flat() : [...transfer.files];
  return inOrder(files);
}

/** Files in natural order: img2 before img10. */
export function inOrder(files) {
  const order = new Intl.Collator(undefined, { numeric: true });
  return [...files].sort((a, b) => order.compare(a.name, b.name));
}

/** A sentence if files exceed the limits of the server, or null. */
export function refusal(files, limits, bytes) {
  if (!files.length) return "Nothing that could be read was dropped.";
  if (files.length > limits.files) {
    return `${files.length} files; at most ${limits.files} can be opened at once. `
      + "Drop the folder of one stack.";
  }
  const large = files.find((file) => file.size > limits.file_bytes);
  if (large) {
    return `${large.name}: ${bytes(large.size)}; a file may have at most ${bytes(limits.file_bytes)}.`;
  }
  const total = files.reduce((sum, file) => sum + file.size, 0);
  if (total > limits.total_bytes) {
    return `${bytes(total)} in all; at most ${bytes(limits.total_bytes)} can be uploaded. `
      + "Start the app with the folder of the stack instead: nothing is copied then.";
  }
  return null;
}
