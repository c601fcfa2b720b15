// Tiles of a sheet on canvases: exact pixels at any size.
const tiles = (() => {
  function load(sheet) {
    if (!sheet) return Promise.resolve(null);
    sheet.loading ??= new Promise((done) => {
      const image = new Image();
      image.onload = () => { sheet.image = image; done(sheet); };
      image.src = sheet.address;
    });
    return sheet.loading;
  }

  function draw(canvas, sheet, index) {
    const [width, height] = sheet.tile;
    canvas.width = width;
    canvas.height = height;
    canvas.style.aspectRatio = `${width} / ${height}`;
    load(sheet).then(() => {
      const [row, column] = [Math.floor(index / sheet.columns), index % sheet.columns];
      canvas.getContext("2d").drawImage(sheet.image, column * width, row * height, width, height, 0, 0, width, height);
    });
    return canvas;
  }

  function picture(sheet, index, words) {
    const canvas = report.make("canvas", { className: "tile" });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", words);
    return draw(canvas, sheet, index);
  }

  return { load, draw, picture };
})();
