// The slides and specimens of the run, by column, and their pictures.

const slides = decoded(report.slides);
const specimens = decoded(report.specimens);
const nSlides = slides.slide_id.length;
const nSpecimens = specimens.name.length;
const everySlide = [...Array(nSlides).keys()];
const everySpecimen = [...Array(nSpecimens).keys()];

const parsed = new Map();
/** The page's pictures, `thumbnails` or `pictures`, by place of the slide; parsed when the first is asked for. */
function pictured(which) {
  if (!parsed.has(which)) parsed.set(which, read(which));
  return parsed.get(which);
}
