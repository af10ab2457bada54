/* The viewer of a case: shows what the page carries, and loads nothing else. */
(function () {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const settings = JSON.parse(byId("settings").textContent);
  const section = byId("viewer");
  const canvas = byId("canvas");
  const names = all("[data-map]").map((box) => box.dataset.map);
  const hidden = new Set();
  const hiddenMaps = new Set();
  const whole = {};
  const outlines = {};
  const labelOf = new Map(settings.labels.map((label) => [label.id, label]));
  const AXIS = { multi: 2, axial: 2, coronal: 1, sagittal: 0 };
  let layout = "multi";
  let nv = null;
  let everythingHidden = false;

  function between(value, from, to) {
    for (let i = 1; i < from.length; i += 1) {
      if (value <= from[i] || i === from.length - 1) {
        const share = (value - from[i - 1]) / (from[i] - from[i - 1]);
        return to[i - 1] + Math.min(1, Math.max(0, share)) * (to[i] - to[i - 1]);
      }
    }
    return to[0];
  }
  const toByte = (hu) => between(hu, settings.hu, settings.bytes);
  const toHu = (byte) => between(byte, settings.bytes, settings.hu);

  /* Gray as a function of the byte: a window in HU bends where the bytes' steps change. */
  function showWindow(level, width) {
    const low = level - width / 2;
    const R = [];
    const I = [];
    for (let byte = 0; byte < 256; byte += 1) {
      R.push(Math.round(255 * Math.min(1, Math.max(0, (toHu(byte) - low) / width))));
      I.push(byte);
    }
    nv.addColormap("window", { R, G: R, B: R, A: I.map(() => 255), I });
    nv.volumes[0].cal_min = 0;
    nv.volumes[0].cal_max = 255;
    nv.volumes[0].colormap = "window";
    nv.updateGLVolume();
    byId("level").value = level;
    byId("width").value = width;
    byId("level-shown").textContent = `${level} HU`;
    byId("width-shown").textContent = `${width} HU`;
    all("[data-window]").forEach((button) => {
      const preset = settings.windows[Number(button.dataset.window)];
      button.setAttribute("aria-pressed", String(preset.level === level && preset.width === width));
    });
  }

  /* The voxels of a label map that touch another label in one of the three planes. */
  function outlineOf(ids, dims) {
    const [, nx, ny, nz] = dims;
    const edge = new Uint8Array(ids.length);
    const steps = [1, nx, nx * ny];
    const sizes = [nx, ny, nz];
    for (let i = 0; i < ids.length; i += 1) {
      if (ids[i] === 0) continue;
      const place = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))];
      for (let axis = 0; axis < 3 && edge[i] === 0; axis += 1) {
        const first = place[axis] === 0 || ids[i - steps[axis]] !== ids[i];
        const last = place[axis] === sizes[axis] - 1 || ids[i + steps[axis]] !== ids[i];
        if (first || last) edge[i] = ids[i];
      }
    }
    return edge;
  }

  function showMasks() {
    names.forEach((name, index) => {
      const volume = nv.volumes[index + 1];
      const source = name === "reference" ? outlines[name] : whole[name];
      const off = everythingHidden || hiddenMaps.has(name);
      volume.img.set(source.map((id) => (off || hidden.has(id) ? 0 : id)));
    });
    nv.updateGLVolume();
  }

  function setLayout(name) {
    layout = name;
    const { AXIAL, CORONAL, SAGITTAL } = niivue.SLICE_TYPE;
    nv.setCustomLayout(
      {
        multi: [
          { sliceType: AXIAL, position: [0, 0, 0.6, 1] },
          { sliceType: CORONAL, position: [0.6, 0, 0.4, 0.5] },
          { sliceType: SAGITTAL, position: [0.6, 0.5, 0.4, 0.5] },
        ],
        axial: [{ sliceType: AXIAL, position: [0, 0, 1, 1] }],
        coronal: [{ sliceType: CORONAL, position: [0, 0, 1, 1] }],
        sagittal: [{ sliceType: SAGITTAL, position: [0, 0, 1, 1] }],
      }[name],
    );
    all("[data-layout]").forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.layout === name)),
    );
  }

  function goTo(mm) {
    nv.scene.crosshairPos = nv.mm2frac(mm);
    nv.createOnLocationChange();
    nv.drawScene();
  }

  function scroll(slices) {
    const step = [0, 0, 0];
    step[AXIS[layout]] = slices;
    nv.moveCrosshairInVox(...step);
    nv.createOnLocationChange();
  }

  function onLocation(data) {
    const hu = Math.round(toHu(data.values[0].value));
    const shown = names.map((name, index) => {
      const at = data.values[index + 1];
      const voxel = whole[name][voxelIndex(at.vox)];
      return `${name}: ${voxel ? labelOf.get(voxel).name : "–"}`;
    });
    const each = settings.slices_each;
    const z = data.values[0].vox[2] * each + Math.floor(each / 2);
    byId("place").textContent = `z = ${z} · ≈ ${hu} HU · ${shown.join(" · ")}`;
  }

  function voxelIndex(vox) {
    const [, nx, ny] = nv.volumes[0].hdr.dims;
    return vox[0] + nx * (vox[1] + ny * vox[2]);
  }

  function toggleMap(name) {
    const box = all("[data-map]").find((it) => it.dataset.map === name);
    if (box) box.click();
  }

  function setAll(on) {
    all("[data-label]").forEach((box) => {
      box.checked = on;
      if (on) hidden.delete(Number(box.dataset.label));
      else hidden.add(Number(box.dataset.label));
    });
    showMasks();
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof HTMLInputElement && event.target.type === "range") return;
    const slices = event.shiftKey ? 5 : 1;
    const actions = {
      ArrowUp: () => scroll(slices), PageUp: () => scroll(5),
      ArrowDown: () => scroll(-slices), PageDown: () => scroll(-5),
      p: () => toggleMap("prediction"), r: () => toggleMap("reference"),
      h: () => { everythingHidden = !everythingHidden; showMasks(); },
      m: () => setLayout("multi"), a: () => setLayout("axial"),
      c: () => setLayout("coronal"), s: () => setLayout("sagittal"),
    };
    settings.windows.forEach((preset, index) => {
      actions[String(index + 1)] = () => showWindow(preset.level, preset.width);
    });
    const inside = section.contains(document.activeElement) || section.matches(":hover");
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || !inside) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  function listen() {
    all("[data-window]").forEach((button) =>
      button.addEventListener("click", () => {
        const preset = settings.windows[Number(button.dataset.window)];
        showWindow(preset.level, preset.width);
      }),
    );
    ["level", "width"].forEach((id) =>
      byId(id).addEventListener("input", () =>
        showWindow(Number(byId("level").value), Number(byId("width").value)),
      ),
    );
    all("[data-layout]").forEach((button) =>
      button.addEventListener("click", () => setLayout(button.dataset.layout)),
    );
    all("[data-map]").forEach((box) =>
      box.addEventListener("change", () => {
        if (box.checked) hiddenMaps.delete(box.dataset.map);
        else hiddenMaps.add(box.dataset.map);
        showMasks();
      }),
    );
    all("[data-label]").forEach((box) =>
      box.addEventListener("change", () => {
        if (box.checked) hidden.delete(Number(box.dataset.label));
        else hidden.add(Number(box.dataset.label));
        showMasks();
      }),
    );
    byId("opacity").addEventListener("input", () => nv.setOpacity(1, Number(byId("opacity").value)));
    byId("all").addEventListener("click", () => setAll(true));
    byId("none").addEventListener("click", () => setAll(false));
    all("[data-go-label]").forEach((button) =>
      button.addEventListener("click", () => goTo(settings.places[button.dataset.goLabel])),
    );
    all("[data-go]").forEach((button) =>
      button.addEventListener("click", () => {
        goTo(button.dataset.go.split(" ").map(Number));
        section.scrollIntoView({ block: "nearest" });
      }),
    );
    document.addEventListener("keydown", onKey, true);
  }

  async function load(name, options) {
    const base64 = byId(`data-${name}`).textContent;
    return niivue.NVImage.loadFromBase64({ base64, name: `${name}.nii.gz`, ...options });
  }

  function labelColors() {
    const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
    settings.labels.forEach(({ id, name, color }) => {
      table.R.push(color[0]);
      table.G.push(color[1]);
      table.B.push(color[2]);
      table.A.push(255);
      table.I.push(id);
      table.labels.push(name);
    });
    return table;
  }

  async function start() {
    nv = new niivue.Niivue({
      logLevel: "error", backColor: [0, 0, 0, 1], crosshairColor: [1, 0.85, 0.2, 0.7], crosshairWidth: 0.7,
      crosshairWidthUnit: "mm", crosshairGap: 14, fontColor: [0.9, 0.93, 0.96, 1], isRadiologicalConvention: true, isResizeCanvas: true, show3Dcrosshair: false,
      sagittalNoseLeft: true,
      showAllOrientationMarkers: true, dragAndDropEnabled: false, dragMode: niivue.DRAG_MODE.slicer3D,
      fontMinPx: 15, isColorbar: false, loadingText: "", tileMargin: 4, multiplanarPadPixels: 4,
    });
    section.hidden = false;
    await nv.attachToCanvas(canvas);
    nv.addVolume(await load("ct", { colormap: "gray", cal_min: 0, cal_max: 255, trustCalMinMax: true }));
    for (const name of names) {
      const volume = await load(name, { opacity: name === "reference" ? 1 : Number(byId("opacity").value) });
      volume.hdr.intent_code = 1002;
      volume.setColormapLabel(labelColors());
      whole[name] = Uint8Array.from(volume.img);
      if (name === "reference") outlines[name] = outlineOf(whole[name], volume.hdr.dims);
      nv.addVolume(volume);
    }
    nv.onLocationChange = onLocation;
    listen();
    showMasks();
    const [preset] = settings.windows;
    showWindow(preset.level, preset.width);
    setLayout("multi");
    goTo(settings.start);
    return nv;
  }

  window.cfsegViewer = start().catch((error) => {
    section.hidden = true;
    console.error(error);
    return null;
  });
})();
