"use strict";
// Nodes of the page: built from values, always as text, and compared with what is there.

const SVG = "http://www.w3.org/2000/svg";
const OWN = ["open", "style"];   // attributes that belong to the page as it stands: what is unfolded, and bars
const $ = (id) => document.getElementById(id);

// h("p.soft", {title: "x"}, "text", node…): an element; null and false are left out.
function h(spec, attributes, ...children) {
  const [tag, ...classes] = spec.split(".");
  return fill(document.createElement(tag), classes, attributes, children);
}
function s(spec, attributes, ...children) {
  const [tag, ...classes] = spec.split(".");
  return fill(document.createElementNS(SVG, tag), classes, attributes, children);
}
function fill(element, classes, attributes, children) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

// Makes `old` look like `fresh` with as few changes as possible, so that focus, selection and what is unfolded stay.
function morph(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!OWN.includes(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (!OWN.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (fresh.bar !== undefined) paint(old, fresh.bar);
  children(old, [...fresh.childNodes]);
}
function children(old, fresh) {
  fresh.forEach((node, i) => {
    const there = old.childNodes[i];
    if (!there) old.append(node);
    else if (there.nodeName !== node.nodeName) there.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) { if (there.data !== node.data) there.data = node.data; }
    else morph(there, node);
  });
  while (old.childNodes.length > fresh.length) old.lastChild.remove();
}
function show(id, ...fresh) { children($(id), fresh.flat(Infinity).filter((node) => node)); }

// One part of a bar; its width is set by script because the page's policy allows no style attributes.
function part(kind, share) {
  const element = h("i." + kind);
  paint(element, share);
  return element;
}
function paint(element, share) {
  element.bar = share;
  element.style.width = `${(100 * share).toFixed(1)}%`;
}
