// Images to label. Labels are sent, images loaded and a classifier fitted while a person looks.

import { followJob } from "./api.js";

const LABELS_PER_FIT = 5;
const LENGTH = 24;
// So many stay, whatever images are better.
const FIXED = 2;
const LOADED_AHEAD = 5;
const RETRY_MS = 3000;
// After the last label, too.
const IDLE_MS = 2000;

const ended = async (answer) => {
  // With many labels, it is a job.
  if (answer.state) await new Promise((resolve) => followJob(answer.id, (job) => job.ended && resolve()));
  return Boolean(answer.state);
};

/** The images that teach the classifier most, and some at random. */
export class LabelQueue extends EventTarget {
  constructor(collection, { key, classes }) {
    super();
    Object.assign(this, { collection, key, images: [], history: [], waiting: [], given: 0 });
    this.skipped = new Set();
    this.done = new Set();
    this.loaded = new Set();
    this.counts = new Map(classes.map(({ label, images }) => [label, images]));
  }

  tell() {
    this.dispatchEvent(new Event("change"));
  }

  /** Classes were chosen by a person: "none" is one, too, so that doubtful labels are kept where a route asks. */
  post(path, body) {
    return this.collection.post(path, { key: this.key, ...body });
  }

  give(label) {
    this.count(label, 1);
    this.given++;
    this.waiting.push(this.leave(label));
    this.save();
    clearTimeout(this.idle);
    this.idle = setTimeout(() => this.given && this.learn(), IDLE_MS);
  }

  skip() {
    this.skipped.add(this.images[0].id);
    this.leave();
  }

  leave(label) {
    const image = this.images.shift();
    const step = { image, label };
    this.done.add(image.id);
    this.history.push(step);
    this.preload();
    if (this.given >= LABELS_PER_FIT || this.images.length < LENGTH / 3) this.learn();
    this.tell();
    return step;
  }

  undo() {
    const step = this.history.pop();
    if (!step) return;
    const { image, label } = step;
    this.done.delete(image.id);
    this.skipped.delete(image.id);
    this.images = [image, ...this.images.filter(({ id }) => id !== image.id)];
    if (label) this.count(label, -1);
    this.tell();
    if (!label || label === image.own) return;
    if (step.isSent) this.waiting.push({ undone: step });
    else this.waiting.splice(this.waiting.indexOf(step), 1);
    this.save();
  }

  count(label, by) {
    this.counts.set(label, (this.counts.get(label) ?? 0) + by);
  }

  /** Send what waits, in order: a label may be given, taken back and given again. */
  save() {
    this.saving = (this.saving ?? Promise.resolve()).then(() => this.send());
    return this.saving;
  }

  /** What waits is not on disk. It waits until the service has answered; what fails is sent again. */
  async send() {
    let most = 100;
    while (this.waiting.length) {
      const [{ undone }] = this.waiting;
      const end = this.waiting.findIndex((step) => step.undone);
      const steps = this.waiting.slice(0, undone ? 1 : Math.min(most, end < 0 ? most : end));
      try {
        this.error = undefined;
        await (undone ? this.takeBack(undone) : this.sendLabels(steps));
      } catch (error) {
        this.fail(error);
        if (!(error.status < 500)) return setTimeout(() => this.save(), RETRY_MS);
        // One of them is refused, such as that of an image that was removed: alone, it does not hold up the others.
        most = 1;
        if (steps.length > 1) continue;
      }
      this.waiting.splice(0, steps.length);
      this.tell();
    }
    return undefined;
  }

  async sendLabels(steps) {
    for (const step of steps) step.isSent = true;
    const { changes } = await this.post("labels", { changes: steps.map(({ label, image }) => ({ ids: [image.id], label })) });
    steps.forEach((step, at) => { step.number = changes[at]; });
    await this.sent(steps);
  }

  takeBack({ number }) {
    return number == null ? undefined : this.post("labels/undo", { change: number });
  }

  async sent() {}

  fail(error) {
    this.error = error;
    this.tell();
  }

  async learn() {
    if (this.isLearning) return;
    this.isLearning = true;
    try {
      await this.save();
      await this.refill();
    } catch (error) {
      this.fail(error);
    }
    this.isLearning = false;
    this.preload();
    this.tell();
    if (this.given >= LABELS_PER_FIT && !this.error) this.learn();
  }

  /** Fit on what is labeled, and ask for better images. */
  async refill() {
    this.given = 0;
    if ([...this.counts.values()].filter((n) => n > 0).length > 1) await ended(await this.post("classifiers", { doubtful: "keep" }));
    // Others get other images, also in another window; but these are not asked for twice.
    const labeler = (sessionStorage.labeler ??= Math.random().toString(36).slice(2));
    const held = this.images.slice(0, 2 * FIXED).map(({ id }) => id);
    const { images } = await this.post("labels/queue", { n: LENGTH, skipped: [...this.skipped], labeler, held });
    const fixed = this.images.slice(0, FIXED);
    this.images = [...fixed, ...images.filter(({ id }) => !this.done.has(id) && !fixed.some((image) => image.id === id))];
    this.tell();
    this.accuracy = await this.collection.get("labels/accuracy", { key: this.key });
  }

  preload() {
    for (const { id } of this.images.slice(0, LOADED_AHEAD)) {
      if (this.loaded.has(id)) continue;
      this.loaded.add(id);
      new Image().src = this.collection.original(id);
    }
  }
}

/** Labeled images that look more like another class. What a person decides about them is doubted no more. */
export class MistakeQueue extends LabelQueue {
  async refill() {
    if (this.check) return;
    const answer = await this.post("labels/check", { doubtful: "keep" });
    this.check = (await ended(answer)) ? await this.collection.get("labels/check", { key: this.key }) : answer;
    this.images = this.check.suspects.map(({ label, suggested, ...image }) => ({ ...image, own: label, label: suggested }));
  }

  count() {}

  sent(steps) {
    return this.post("labels/confirm", { ids: steps.map(({ image }) => image.id) });
  }
}
