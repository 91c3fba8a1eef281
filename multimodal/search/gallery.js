"use strict";
{
  const media = JSON.parse(document.getElementById("media").textContent);
  const fill = (element) => { element.src = media[Number(element.dataset.media)]; };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { fill(entry.target); seen.unobserve(entry.target); }
  }, { rootMargin: "600px" });
  for (const element of document.querySelectorAll("[data-media]")) seen.observe(element);
  addEventListener("beforeprint", () => document.querySelectorAll("[data-media]").forEach(fill));
  document.getElementById("find").addEventListener("input", (event) => {
    const words = event.target.value.trim().toLowerCase();
    for (const article of document.querySelectorAll("article")) {
      article.hidden = words !== "" && !article.textContent.toLowerCase().includes(words);
    }
  });
}
