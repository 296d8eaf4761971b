// Looks at pages in headless Chromium:
//   node look.js CHROMIUM FILE...
// Prints a line of JSON for each file, size and colour scheme: what the console
// says, what is loaded, what axe finds, whether the page is too wide, and the
// numbers on it by their labels.
'use strict';
const axe = require('axe-core');
const puppeteer = require('puppeteer-core');

const timeout = 180000; // a busy machine is slow

// Runs in the page.
function numbersOfPage() {
  const numbers = {};
  for (const data of document.querySelectorAll('dl.key data, .funnel data, h3 data')) {
    const place = data.closest('div, li, h3');
    const label = place.querySelector('dt, span')?.textContent ?? place.firstChild.textContent;
    numbers[label.replace(/:\s*$/, '')] = Number(data.value);
  }
  return numbers;
}

async function look(browser, file, width, scheme) {
  const page = await browser.newPage();
  const complaints = [];
  const loaded = [];
  page.on('console', (message) => complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('dialog', (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('request', (request) => loaded.push(request.url()));
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  await page.goto(`file://${file}`, { waitUntil: 'load', timeout });
  const tooWide = await page.evaluate(
    () => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  const numbers = await page.evaluate(numbersOfPage);
  const scripts = await page.evaluate(() => document.scripts.length);
  await page.evaluate(() => document.querySelectorAll('details').forEach((d) => { d.open = true; }));
  await page.evaluate(axe.source);
  const found = await page.evaluate(() => axe.run());
  const violations = found.violations.map(
    (v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200)).join(' ')}`);
  const passes = found.passes.length;
  await page.close();
  return {
    file, width, scheme, complaints, tooWide, numbers, scripts, violations, passes,
    loaded: loaded.filter((url) => url !== `file://${file}` && url !== 'data:,'),
  };
}

async function main() {
  const [executablePath, ...files] = process.argv.slice(2);
  const browser = await puppeteer.launch({
    executablePath, pipe: true, timeout,
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  });
  for (const file of files) {
    for (const [width, scheme] of [[1280, 'light'], [1280, 'dark'], [390, 'light'], [390, 'dark']]) {
      console.log(JSON.stringify(await look(browser, file, width, scheme)));
    }
  }
  await browser.close();
}

main();
